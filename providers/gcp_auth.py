"""Google access tokens: from a service account key, from a user's refresh token, or one that is given."""

from datetime import timedelta
from typing import cast

from google.auth import jwt
from google.auth.crypt import RSASigner
from pydantic import Field, SecretStr, ValidationError

from engine.clock import Clock
from engine.errors import AuthenticationFailed, NotFound, ProviderError
from providers.base import ProviderSettings
from providers.gcp_wire import AccessToken
from providers.rest import KeptToken, RestApi, Token, Wire, check_endpoint

_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_PUBLIC_TOKEN_URI = "https://oauth2.googleapis.com/token"  # noqa: S105 (an address)
_JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_ASSERTION_LIFETIME = timedelta(hours=1)


class _ServiceAccountKey(Wire):
    """A key file as the console hands it out."""

    client_email: str
    private_key: SecretStr
    private_key_id: str = ""
    token_uri: str = Field(default=_PUBLIC_TOKEN_URI)


class _GivenToken:
    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self) -> str:
        return self._token

    def forget(self) -> None:
        """There is no other to be had."""


def google_token(settings: ProviderSettings, api: RestApi, clock: Clock) -> Token:
    """By ``credentials``: ``service_account_json`` (the whole key file), or ``client_id``, ``client_secret`` and
    ``refresh_token`` (what ``gcloud auth application-default login`` writes), or a ready ``access_token``.

    Raises AuthenticationFailed where none of these is complete or the key cannot be read; the returned token raises
    it where Google refuses.
    """
    given = {name: secret.get_secret_value() for name, secret in settings.credentials.items()}
    if "service_account_json" in given:
        return _ServiceAccountToken(settings, given["service_account_json"], api, clock).kept
    if {"client_id", "client_secret", "refresh_token"} <= given.keys():
        form = {name: given[name] for name in ("client_id", "client_secret", "refresh_token")}
        uri = f"{settings.endpoint.rstrip('/')}/token" if settings.endpoint else _PUBLIC_TOKEN_URI
        return KeptToken(lambda: _exchanged(settings, api, uri, {"grant_type": "refresh_token", **form}), clock)
    if given.get("access_token"):
        return _GivenToken(given["access_token"])
    raise AuthenticationFailed(
        f"{settings.name}: no credentials",
        why="neither credentials.service_account_json nor a refresh token nor an access token is configured",
        next_step='set credentials.service_account_json = {env = "NAME"} '
        f"in the [[providers]] table {settings.name!r}",
    )


class _ServiceAccountToken:
    def __init__(self, settings: ProviderSettings, key_json: str, api: RestApi, clock: Clock) -> None:
        self._settings, self._api, self._clock = settings, api, clock
        try:
            self._key = _ServiceAccountKey.model_validate_json(key_json)
            self._signer = RSASigner.from_string(  # type: ignore[no-untyped-call]
                self._key.private_key.get_secret_value(), self._key.private_key_id
            )
        except (ValidationError, ValueError):
            raise AuthenticationFailed(
                f"{settings.name}: credentials.service_account_json is not a service account key",
                next_step="give the whole JSON key file of the service account",
            ) from None
        check_endpoint(f"providers.{settings.name}.credentials.service_account_json: token_uri", self._key.token_uri)
        self.kept = KeptToken(self._fetch, clock)

    def _fetch(self) -> tuple[str, timedelta]:
        issued = int(self._clock.now().timestamp())
        claims = {
            "iss": self._key.client_email,
            "scope": _SCOPE,
            "aud": self._key.token_uri,
            "iat": issued,
            "exp": issued + int(_ASSERTION_LIFETIME.total_seconds()),
        }
        assertion = cast(bytes, jwt.encode(self._signer, claims)).decode()  # type: ignore[no-untyped-call]
        form = {"grant_type": _JWT_BEARER, "assertion": assertion}
        return _exchanged(self._settings, self._api, self._key.token_uri, form)


def _exchanged(settings: ProviderSettings, api: RestApi, uri: str, form: dict[str, str]) -> tuple[str, timedelta]:
    try:
        answer = api.read(AccessToken, api.send("POST", uri, token=None, form=form))
    except (AuthenticationFailed, NotFound):
        raise
    except ProviderError as refused:
        if type(refused) is not ProviderError:
            raise
        raise AuthenticationFailed(refused.what, why=refused.why, next_step=_step(settings)) from None
    return answer.access_token, timedelta(seconds=answer.expires_in)


def _step(settings: ProviderSettings) -> str:
    return f"check the credentials of provider {settings.name!r}"
