"""Does every operation answer as the description says, whatever it is asked? By schemathesis, where it is installed.

Requests are made up from the description that ships, well-formed and malformed ones; made-up ids match nothing, so
nothing is bought. The stream of events is left out: it has cases of its own, and a made-up one may last an hour.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import httpx

from engine.clock import Clock
from engine.errors import MissingPart
from providers.network.conformance.base import CaseResult, Outcome
from providers.network.description import frozen
from providers.retry import retry_after_seconds

if TYPE_CHECKING:
    from schemathesis import APIOperation, Case, GenerationMode

_LEFT_OUT = ("/v1/events/stream",)
_BUSY_TRIES = 10
_CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
)
Send = Callable[["Case[Any]"], httpx.Response]


def fuzzed(http: httpx.Client, token: str, *, clock: Clock, examples: int, seed: int = 0) -> Iterator[CaseResult]:
    """One result per operation; ``examples`` requests of each kind at most. Raises MissingPart without schemathesis."""
    try:
        from schemathesis import openapi
        from schemathesis.checks import load_all_checks
        from schemathesis.config import SchemathesisConfig
    except ImportError:
        raise MissingPart("fuzzing needs schemathesis", next_step="pip install schemathesis, or --examples 0") from None
    load_all_checks()
    schema = openapi.from_dict(frozen(), config=SchemathesisConfig())
    for found in schema.get_all_operations():
        operation = found.ok()  # type: ignore[union-attr]  # what we ship is valid, which a test asserts
        if operation.path not in _LEFT_OUT:
            yield _judged(operation, _sender(http, token, clock), examples, seed)


def _judged(operation: "APIOperation[Any, Any, Any, Any]", send: Send, examples: int, seed: int) -> CaseResult:
    from schemathesis import GenerationMode
    from schemathesis.errors import FailureGroup

    name, expected = f"fuzz {operation.label}", "status, content type and shape as described; what is malformed refused"
    sent = []
    try:
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            sent.append(_try_all(operation, mode, send, examples, seed))
    except FailureGroup as failures:
        seen = "; ".join(sorted({_one_line(failure) for failure in failures.exceptions}))
        return CaseResult(name=name, outcome=Outcome.FAILED, expected=expected, seen=seen)
    except httpx.TransportError as problem:
        return CaseResult(name=name, outcome=Outcome.FAILED, expected=expected, seen=f"{type(problem).__name__}")
    seen = f"{sent[0]} well-formed and {sent[1]} malformed requests"
    return CaseResult(name=name, outcome=Outcome.PASSED, expected=expected, seen=seen)


def _try_all(
    operation: "APIOperation[Any, Any, Any, Any]", mode: "GenerationMode", send: Send, examples: int, seed: int
) -> int:
    """How many were sent. Raises schemathesis' FailureGroup at the first answer that is not as described."""
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded
    from hypothesis.errors import NonInteractiveExampleWarning, Unsatisfiable
    from schemathesis.checks import CHECKS

    checks: list[Any] = CHECKS.get_by_names(list(_CHECKS))
    sent = 0

    @seeded(seed)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def try_one(case: "Case[Any]") -> None:
        nonlocal sent
        answer = send(case)
        sent += 1
        case.validate_response(answer, checks=checks)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NonInteractiveExampleWarning)
        with suppress(Unsatisfiable):  # there is nothing malformed to say where there is nothing to say
            try_one()
    return sent


def _sender(http: httpx.Client, token: str, clock: Clock) -> Send:
    """As the tenant, unless the token is what is wrong with the request; patient with 429."""
    import requests

    def send(case: "Case[Any]") -> httpx.Response:
        made = requests.Request(**case.as_transport_kwargs(base_url=str(http.base_url).rstrip("/"))).prepare()
        headers = [(name.encode("latin-1", "replace"), _bytes(value)) for name, value in made.headers.items()]
        kept = [(name, value) for name, value in headers if name.lower() not in (b"authorization", b"host")]
        if not case.operation.schema.is_security_param_negated(case):
            kept.append((b"Authorization", f"Bearer {token}".encode()))
        request = httpx.Request(
            made.method or "GET",
            made.url or "",
            headers=kept,
            content=made.body if isinstance(made.body, str | bytes) else b"",
        )
        for _ in range(_BUSY_TRIES):
            answer = http.send(request)
            if answer.status_code != httpx.codes.TOO_MANY_REQUESTS:
                break
            clock.sleep(retry_after_seconds(answer.headers, clock.now()) or 1.0)
        answer.elapsed = timedelta(0)  # schemathesis wants one; how long it took is not judged here
        return answer

    return send


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode("latin-1", "replace")


def _one_line(failure: BaseException) -> str:
    title = getattr(failure, "title", type(failure).__name__)
    message = str(getattr(failure, "message", failure)).strip().splitlines()
    return f"{title}: {message[0]}" if message else str(title)
