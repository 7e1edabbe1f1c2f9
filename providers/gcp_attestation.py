"""Identity of Compute Engine instances: Google's identity token (JWT, RS256) with our challenge as its audience."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from pydantic import BaseModel, ConfigDict, ValidationError

from engine.clock import Clock
from engine.errors import ProviderAnswerInvalid
from engine.model.attestation import AttestedInstance, audience
from providers.attestation_keys import refused, unusable
from providers.base import ProviderSettings
from providers.rest import RestApi, Wire

_ISSUERS = ("https://accounts.google.com", "accounts.google.com")
_SKEW_SECONDS = 60
_ASK_AGAIN = timedelta(minutes=1)


class _Instance(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    instance_id: str
    project_id: str
    zone: str


class _Google(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    compute_engine: _Instance


class _Claims(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    iss: str
    aud: str
    iat: int
    exp: int
    google: _Google


class _Keys(Wire):
    keys: list[dict[str, Any]]


class GcpAttestor:
    """``attestation_keys``: https://www.googleapis.com/oauth2/v3/certs, or a file that holds such a key set.

    Google changes its keys every few weeks: a token that names an unknown key makes us read them again.
    """

    def __init__(self, settings: ProviderSettings, *, clock: Clock, api: RestApi | None = None) -> None:
        self._settings, self._clock = settings, clock
        self._source = settings.attestation_keys or ""
        self._remote = self._source.startswith("https://")
        self._api = api or (RestApi(settings, clock) if self._remote else None)
        self._keys = KeySet([])
        self._asked_at: datetime | None = None
        if not self._remote:
            self._keys = self._read()

    def attested(self, evidence: str, challenge: str) -> AttestedInstance:
        claims = self._claims(evidence)
        now = self._clock.now().timestamp()
        if claims.iss not in _ISSUERS:
            raise refused(self._settings, "Google did not issue it")
        if claims.exp <= now:
            raise refused(self._settings, "it has expired")
        if claims.iat > now + _SKEW_SECONDS:
            raise refused(self._settings, "it is from the future")
        if claims.aud != audience(challenge):
            raise refused(self._settings, "it answers another challenge")
        said = claims.google.compute_engine
        return AttestedInstance(
            instance_id=said.instance_id, account=said.project_id, region=said.zone.rpartition("-")[0]
        )

    def _claims(self, evidence: str) -> _Claims:
        if self._remote and self._names_unknown_key(evidence):
            self._keys = self._read()
        try:
            return self._decoded(evidence)
        except ValidationError:
            raise refused(self._settings, "it is no identity token with the instance's details") from None
        except (JoseError, ValueError):
            raise refused(self._settings, "no known key made its signature") from None

    def _names_unknown_key(self, evidence: str) -> bool:
        """Asked at most once a minute: anybody may show a token that names what it likes."""
        try:
            named = jws.extract_compact(evidence.encode()).headers().get("kid")
        except (JoseError, ValueError):
            return False
        now = self._clock.now()
        if named in {key.kid for key in self._keys.keys} or (self._asked_at and now - self._asked_at < _ASK_AGAIN):
            return False
        self._asked_at = now
        return True

    def _decoded(self, evidence: str) -> _Claims:
        """Raises JoseError, ValueError (no known key, not a token) or ValidationError (not these claims)."""
        if not self._keys.keys:
            raise ValueError("no keys")
        return _Claims.model_validate(jwt.decode(evidence, self._keys, algorithms=["RS256"]).claims)

    def _read(self) -> KeySet:
        """Raises ConfigurationError for a file that cannot be read, ProviderError where the URL does not answer."""
        try:
            if self._api is not None:
                found = self._api.get(_Keys, self._source, token=None)
            else:
                found = _Keys.model_validate_json(Path(self._source).read_bytes())
            return KeySet.import_key_set({"keys": found.keys})
        except (OSError, ValueError, JoseError) as problem:
            if self._remote:  # not the node's fault: it may ask again
                raise ProviderAnswerInvalid(f"{self._source} holds no keys", why=str(problem)) from problem
            raise unusable(self._settings, str(problem)) from problem
