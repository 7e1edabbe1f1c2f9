"""Calls to Azure's REST APIs with one subscription's credentials."""

import threading
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, TypeVar
from urllib.parse import quote

import httpx

from engine.clock import Clock
from engine.errors import AuthenticationFailed, NotFound, ProviderAnswerInvalid, ProviderError
from providers.azure_wire import AccessToken, Page
from providers.base import ProviderSettings
from providers.rest import KeptToken, RestApi, Token, W, same_origin

P = TypeVar("P", bound=Page)
_SCOPE = "https://management.azure.com/.default"
_NEEDED = ("tenant_id", "client_id", "client_secret")
_MAX_PAGES = 200


class AzureApi:
    """``settings.endpoint`` (if set) serves ARM, Entra's token endpoint and the retail price list.

    ``credentials`` are a service principal's ``tenant_id``, ``client_id`` and ``client_secret``. Errors of every call:
    those of ``RestApi.send``, and AuthenticationFailed where the credentials are incomplete or refused.
    """

    def __init__(self, settings: ProviderSettings, clock: Clock, *, transport: httpx.BaseTransport | None = None):
        self._settings, self._clock = settings, clock
        self._rest = RestApi(settings, clock, transport=transport)
        base = settings.endpoint.rstrip("/") if settings.endpoint else None
        self.arm = base or "https://management.azure.com"
        self.prices = f"{base or 'https://prices.azure.com'}/api/retail/prices"
        self.subscription = f"{self.arm}/subscriptions/{settings.account}"
        self._authority = base or "https://login.microsoftonline.com"
        self._token: Token | None = None
        self._lock = threading.Lock()

    def get(self, answer: type[W], url: str, params: Mapping[str, str | int] | None = None) -> W:
        """From ARM, with the token."""
        return self._rest.get(answer, url, token=self._bearer(), params=params)

    def pages(self, answer: type[P], url: str, params: Mapping[str, str | int]) -> Iterator[P]:
        """``get`` along ``nextLink``; a link that leads away from ARM is refused: the token stays at home."""
        page = self.get(answer, url, params)
        for _ in range(_MAX_PAGES):
            yield page
            if not page.next_link:
                return
            if not same_origin(page.next_link, self.arm):
                raise ProviderAnswerInvalid(f"{self._settings.name}: a page of {httpx.URL(url).path} leads elsewhere")
            page = self.get(answer, page.next_link)
        raise ProviderAnswerInvalid(f"{self._settings.name}: {httpx.URL(url).path} does not stop paging")

    def public(self, answer: type[W], url: str, params: Mapping[str, str | int] | None = None) -> W:
        """Without a token."""
        return self._rest.get(answer, url, token=None, params=params)

    def post(self, url: str, body: Mapping[str, Any], params: Mapping[str, str | int]) -> httpx.Response:
        return self._rest.send("POST", url, token=self._bearer(), params=params, json=body)

    def asked(self, answer: type[W], url: str, body: Mapping[str, Any], params: Mapping[str, str | int]) -> W:
        """A read that ARM wants as POST."""
        return self._rest.read(answer, self.post(url, body, params))

    def poll(self, url: str) -> httpx.Response:
        """An operation that ARM gave the link of."""
        if not same_origin(url, self.arm):
            raise ProviderAnswerInvalid(f"{self._settings.name}: an operation's link leads elsewhere")
        return self._rest.send("GET", url, token=self._bearer())

    def read(self, answer: type[W], response: httpx.Response) -> W:
        return self._rest.read(answer, response)

    def download(self, url: str) -> bytes:
        """A link that is signed by itself: no token goes along."""
        return self._rest.send("GET", url, token=None).content

    def delete(self, url: str, params: Mapping[str, str | int]) -> None:
        self._rest.send("DELETE", url, token=self._bearer(), params=params)

    def _bearer(self) -> Token:
        with self._lock:
            if self._token is None:
                self._token = self._client_credentials()
            return self._token

    def _client_credentials(self) -> Token:
        name, given = self._settings.name, self._settings.credentials
        missing = [key for key in _NEEDED if not (key in given and given[key].get_secret_value())]
        if missing:
            raise AuthenticationFailed(
                f"{name}: no credentials",
                why=f"credentials.{missing[0]} is not configured",
                next_step=f'set credentials.{missing[0]} = {{env = "NAME"}} in the [[providers]] table {name!r}',
            )
        tenant = quote(given["tenant_id"].get_secret_value(), safe="")
        url = f"{self._authority}/{tenant}/oauth2/v2.0/token"
        form = {
            "grant_type": "client_credentials",
            "client_id": given["client_id"].get_secret_value(),
            "client_secret": given["client_secret"].get_secret_value(),
            "scope": _SCOPE,
        }

        def fetch() -> tuple[str, timedelta]:
            try:
                answer = self._rest.read(AccessToken, self._rest.send("POST", url, token=None, form=form))
            except (AuthenticationFailed, ProviderError) as refused:
                if type(refused) not in (AuthenticationFailed, ProviderError, NotFound):
                    raise
                step = f"check the credentials of provider {name!r}"
                what = f"{name}: Entra gave no token"
                raise AuthenticationFailed(what, why=refused.why, next_step=step) from None
            return answer.access_token, timedelta(seconds=answer.expires_in)

        return KeptToken(fetch, self._clock)
