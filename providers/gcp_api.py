"""Calls to Google Cloud's REST APIs with one project's credentials."""

import threading
from collections.abc import Iterator, Mapping
from typing import TypeVar

import httpx

from engine.clock import Clock
from engine.errors import ProviderAnswerInvalid
from providers.base import ProviderSettings
from providers.gcp_auth import google_token
from providers.gcp_wire import Page
from providers.rest import RestApi, Token, W

P = TypeVar("P", bound=Page)
Params = Mapping[str, str | int]
_MAX_PAGES = 200


class GcpApi:
    """``settings.endpoint`` (if set) serves Compute Engine, Cloud Billing, Storage, Monitoring and the token endpoint.

    Errors of every call: those of ``RestApi.send``, and AuthenticationFailed where no credentials are configured.
    """

    def __init__(self, settings: ProviderSettings, clock: Clock, *, transport: httpx.BaseTransport | None = None):
        self._settings, self._clock = settings, clock
        self._rest = RestApi(settings, clock, transport=transport)
        base = settings.endpoint.rstrip("/") if settings.endpoint else None
        self.compute = f"{base or 'https://compute.googleapis.com'}/compute/v1/projects/{settings.account}"
        self.billing = base or "https://cloudbilling.googleapis.com"
        self.storage = base or "https://storage.googleapis.com"
        self.monitoring = base or "https://monitoring.googleapis.com"
        self._token: Token | None = None
        self._lock = threading.Lock()

    def get(self, answer: type[W], url: str, params: Params | None = None) -> W:
        return self._rest.get(answer, url, token=self._bearer(), params=params)

    def pages(self, answer: type[P], url: str, params: Params) -> Iterator[P]:
        """``get`` until there is no next page."""
        following = ""
        for _ in range(_MAX_PAGES):
            page = self.get(answer, url, {**params, **({"pageToken": following} if following else {})})
            yield page
            following = page.next_page_token
            if not following:
                return
        raise ProviderAnswerInvalid(f"{self._settings.name}: {httpx.URL(url).path} does not stop paging")

    def download(self, url: str, params: Params) -> bytes:
        return self._rest.send("GET", url, token=self._bearer(), params=params).content

    def delete(self, url: str, params: Params) -> None:
        self._rest.send("DELETE", url, token=self._bearer(), params=params)

    def _bearer(self) -> Token:
        with self._lock:
            if self._token is None:
                self._token = google_token(self._settings, self._rest, self._clock)
            return self._token
