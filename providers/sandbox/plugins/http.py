"""JSON over HTTP for the stand-ins: time-outs, retries of what may pass, named errors."""

import ssl
from collections.abc import Callable, Mapping
from random import SystemRandom
from typing import Any

import httpx

from engine.clock import SystemClock
from engine.errors import AuthenticationFailed, ProviderAnswerInvalid, ProviderUnavailable
from providers.retry import call_with_retries

Document = Mapping[str, Any]
_TIMEOUT_SECONDS = 15.0
_MAY_PASS = {429, 500, 502, 503, 504}


class JsonApi:
    """``authorize()`` gives the Authorization header of each call. Calls must be safe to repeat."""

    def __init__(
        self, name: str, base_url: str, authorize: Callable[[], str], *, verify: ssl.SSLContext | bool = True
    ) -> None:
        self.name, self._authorize, self.clock = name, authorize, SystemClock()
        self._http = httpx.Client(base_url=base_url, timeout=_TIMEOUT_SECONDS, verify=verify, trust_env=False)

    def call(
        self, method: str, path: str, *, body: Document | None = None, params: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """Any answer below 500 but 401 and 403. Raises ProviderUnavailable and AuthenticationFailed."""
        return call_with_retries(
            lambda: self._once(method, path, body, params),
            attempts=4,
            clock=self.clock,
            rng=SystemRandom(),
            retry_on=(ProviderUnavailable,),
        )

    def _once(self, method: str, path: str, body: Document | None, params: Mapping[str, str] | None) -> httpx.Response:
        try:
            answer = self._http.request(
                method, path, json=body, params=params, headers={"Authorization": f"Bearer {self._authorize()}"}
            )
        except httpx.HTTPError as problem:
            raise ProviderUnavailable(f"{self.name}: {method} {path}", why=f"{type(problem).__name__}") from problem
        if answer.status_code in (401, 403):
            raise AuthenticationFailed(f"{self.name}: {method} {path}: {answer.status_code}", why=answer.text[:300])
        if answer.status_code in _MAY_PASS:
            raise ProviderUnavailable(f"{self.name}: {method} {path}: {answer.status_code}", why=answer.text[:300])
        return answer


def document_of(answer: httpx.Response) -> dict[str, Any]:
    """The JSON object of an answer. Raises ProviderAnswerInvalid."""
    try:
        found = answer.json()
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ProviderAnswerInvalid(f"{answer.request.method} {answer.request.url.path}: not a JSON object")
    return found
