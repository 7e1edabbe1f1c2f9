"""Calls to a provider's REST API: time-outs, retries, bearer tokens, and the provider's errors in our words.

Every call that goes through here is safe to repeat: reads, deletes, and requests that buy nothing.
"""

import ssl
import threading
import weakref
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from ipaddress import ip_address
from random import Random, SystemRandom
from typing import Any, Protocol, TypeVar

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from engine.clock import Clock
from engine.errors import (
    AnswerTooLarge,
    AuthenticationFailed,
    ConfigurationError,
    InsufficientCapacity,
    NotFound,
    ProviderAnswerInvalid,
    ProviderError,
    ProviderUnavailable,
)
from providers.base import ProviderSettings
from providers.retry import call_with_retries, retry_after_seconds

MAX_ANSWER_BYTES = 512 * 1024 * 1024
_ATTEMPTS = 4
_CAP_SECONDS = 5.0
_PASSING = frozenset({408, 429, 500, 502, 503, 504})
NO_CAPACITY = frozenset(
    {"QUOTA_EXCEEDED", "quotaExceeded", "ZONE_RESOURCE_POOL_EXHAUSTED", "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS"}
    | {"AllocationFailed", "ZonalAllocationFailed", "OverconstrainedAllocationRequest", "SkuNotAvailable"}
    | {"OverconstrainedZonalAllocationRequest", "QuotaExceeded"}
)
"""Codes of Google Cloud's and Azure's errors that say that there is none to be had, or none for us; also where their
Pulumi plugins tell them."""
_THROTTLED = frozenset({"rateLimitExceeded", "userRateLimitExceeded"})


class Wire(BaseModel):
    """A part of a provider's answer: what we read is checked, what we do not read is left aside."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, populate_by_name=True)


W = TypeVar("W", bound=BaseModel)


class Token(Protocol):
    """A bearer token that is kept until it runs out. ``forget`` is called when the provider refused it."""

    def __call__(self) -> str: ...
    def forget(self) -> None: ...


class KeptToken:
    """Fetches a token when there is none, and again a minute before it runs out. Thread-safe; never shown."""

    _MARGIN = timedelta(seconds=60)

    def __init__(self, fetch: Callable[[], tuple[str, timedelta]], clock: Clock) -> None:
        self._fetch, self._clock = fetch, clock
        self._lock = threading.Lock()
        self._kept: tuple[str, datetime] | None = None

    def __call__(self) -> str:
        with self._lock:
            if self._kept is None or self._clock.now() >= self._kept[1] - self._MARGIN:
                token, lifetime = self._fetch()
                self._kept = token, self._clock.now() + lifetime
            return self._kept[0]

    def forget(self) -> None:
        with self._lock:
            self._kept = None


class _MayPass(Exception):
    """An answer or a failure that may pass; ``wait`` as the provider asked."""

    def __init__(self, why: str, wait: float | None = None) -> None:
        self.why, self.wait = why, wait
        super().__init__(why)


class RestApi:
    """One provider's HTTP side. Raises ConfigurationError on an unusable endpoint.

    ``table``: where it is configured, for errors; ``login``: user and password instead of a token; ``transport`` is for
    tests.
    """

    def __init__(
        self,
        settings: ProviderSettings,
        clock: Clock,
        *,
        rng: Random | None = None,
        transport: httpx.BaseTransport | None = None,
        table: str | None = None,
        login: tuple[str, str] | None = None,
    ) -> None:
        self._table = table or f"providers.{settings.name}"
        if settings.endpoint:
            check_endpoint(f"{self._table}.endpoint", settings.endpoint)
        self._settings, self._clock, self._rng = settings, clock, rng or SystemRandom()
        self._http = httpx.Client(
            timeout=settings.timeout_seconds,
            verify=_certificates(settings, self._table),
            auth=login,
            headers={"Accept": "application/json", "User-Agent": "shardwright"},
            trust_env=settings.endpoint is None,
            transport=transport,
        )
        weakref.finalize(self, self._http.close)

    def get(
        self, answer: type[W], url: str, *, token: Token | None, params: Mapping[str, str | int] | None = None
    ) -> W:
        """The answer's body, checked. Errors as in ``send``."""
        return self.read(answer, self.send("GET", url, token=token, params=params))

    def read(self, answer: type[W], response: httpx.Response) -> W:
        """Raises ProviderAnswerInvalid where the body is not what the API promises."""
        try:
            return answer.model_validate_json(response.content)
        except ValidationError as problem:
            first = problem.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ProviderAnswerInvalid(
                f"{self._settings.name}: {_place(response)} did not answer as its API promises",
                why=f"{where}: {first['msg']}" if where else first["msg"],
            ) from None

    def send(
        self,
        method: str,
        url: str,
        *,
        token: Token | None,
        params: Mapping[str, str | int] | None = None,
        json: Mapping[str, Any] | None = None,
        form: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """A 2xx answer, after retries while the failure may pass and one new token where the old one was refused.

        Raises AuthenticationFailed (401, 403), NotFound (404, 410), InsufficientCapacity (quota or capacity codes),
        ProviderUnavailable (time-out, no connection, 429, 5xx after the retries) or ProviderError for other refusals.
        """

        def once() -> httpx.Response:
            return self._attempt(method, url, token, params=params, json=json, data=form)

        try:
            response = call_with_retries(
                once,
                attempts=_ATTEMPTS,
                clock=self._clock,
                rng=self._rng,
                retry_on=(_MayPass,),
                cap_seconds=_CAP_SECONDS,
                budget_seconds=3 * self._settings.timeout_seconds,
                retry_after=lambda failure: failure.wait if isinstance(failure, _MayPass) else None,
            )
        except _MayPass as failure:
            what = f"{self._settings.name}: {method} {httpx.URL(url).path} failed {_ATTEMPTS} times"
            raise ProviderUnavailable(what, why=failure.why, next_step="try again later") from None
        if response.is_success:
            return response
        raise self._refusal(response)

    def _attempt(self, method: str, url: str, token: Token | None, **arguments: Any) -> httpx.Response:
        response = self._exchange(method, url, token, **arguments)
        if response.status_code == 401 and token is not None:
            token.forget()
            response = self._exchange(method, url, token, **arguments)
        throttled = response.status_code == 403 and _said(response)[0] in _THROTTLED
        if response.status_code in _PASSING or throttled:
            wait = retry_after_seconds(response.headers, self._clock.now())
            raise _MayPass(f"{response.status_code} {_said(response)[1]}".strip(), wait)
        return response

    def _exchange(self, method: str, url: str, token: Token | None, **arguments: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token()}"} if token else {}
        try:
            with self._http.stream(method, url, headers=headers, **arguments) as response:
                content = bytearray()
                for chunk in response.iter_bytes():
                    content += chunk
                    if len(content) > MAX_ANSWER_BYTES:
                        raise AnswerTooLarge(f"{self._settings.name}: {_place(response)} never stops answering")
        except httpx.TimeoutException:
            raise _MayPass(f"no answer in {self._settings.timeout_seconds:g} s") from None
        except httpx.DecodingError:
            raise ProviderAnswerInvalid(
                f"{self._settings.name}: {method} {httpx.URL(url).path} sent bytes that do not decode"
            ) from None
        except httpx.TransportError as failure:
            raise _MayPass(f"{type(failure).__name__}: {failure}") from None
        return httpx.Response(
            response.status_code,
            headers=[(key, value) for key, value in response.headers.items() if key not in _BODY_HEADERS],
            content=bytes(content),
            request=response.request,
        )

    def _refusal(self, response: httpx.Response) -> Exception:
        code, message = _said(response)
        name, why = self._settings.name, ": ".join(part for part in (code, message) if part)
        what = f"{name} refused {_place(response)}"
        if code in NO_CAPACITY:
            return InsufficientCapacity(what, why=why)
        if response.status_code in (401, 403):
            step = f"check the credentials of [{self._table}] and what they are allowed to do"
            return AuthenticationFailed(what, why=why or str(response.status_code), next_step=step)
        if response.status_code in (404, 410):
            return NotFound(what, why=why)
        return ProviderError(what, why=why or f"HTTP {response.status_code}")


_BODY_HEADERS = ("content-encoding", "content-length", "transfer-encoding")


def check_endpoint(where: str, url: str) -> None:
    """Raises ConfigurationError unless this is https, or http to this very machine: tokens travel on it."""
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError):
        parsed = httpx.URL()
    if parsed.scheme == "https" and parsed.host:
        return
    if parsed.scheme != "http" or not _is_loopback(parsed.host):
        raise ConfigurationError(
            f"{where}: {url!r} cannot be used",
            why="credentials would travel in the clear",
            next_step="give an https:// address (http:// only on loopback)",
        )


def same_origin(url: str, base: str) -> bool:
    """Whether a link that a provider sent may be followed with a token that was meant for ``base``."""
    try:
        one, other = httpx.URL(url), httpx.URL(base)
    except (httpx.InvalidURL, TypeError):
        return False
    return (one.scheme, one.host, one.port) == (other.scheme, other.host, other.port)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _certificates(settings: ProviderSettings, table: str) -> ssl.SSLContext | bool:
    if settings.ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=settings.ca_file)
    except OSError as problem:
        raise ConfigurationError(f"{table}.ca_file: {settings.ca_file!r} cannot be read", why=str(problem)) from None


def _place(response: httpx.Response) -> str:
    return f"{response.request.method} {response.request.url.path}"


class _Detail(Wire):
    reason: str = ""


class _ErrorBody(Wire):
    code: int | str = ""
    message: str = ""
    errors: tuple[_Detail, ...] = ()


class _ErrorAnswer(Wire):
    """Google, ARM: an object under ``error``; OAuth: a word there, and a description."""

    error: _ErrorBody | str = ""
    error_description: str = ""


def _said(response: httpx.Response) -> tuple[str, str]:
    """(the provider's word for the error, its sentence), empty where the body says nothing readable."""
    try:
        answer = _ErrorAnswer.model_validate_json(response.content)
    except ValidationError:
        return "", ""
    if isinstance(answer.error, str):
        return answer.error, answer.error_description[:300]
    reasons = [detail.reason for detail in answer.error.errors if detail.reason]
    return reasons[0] if reasons else str(answer.error.code), answer.error.message[:300]
