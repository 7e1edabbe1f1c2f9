"""Run every case against a network and say what was expected and what was seen."""

import ssl
from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec

import httpx
from pydantic import ValidationError

from engine.clock import Clock
from engine.errors import ProviderUnavailable
from engine.model.value import Value
from providers.network.conformance import bargaining_cases, holding_cases, market_cases, record_cases
from providers.network.conformance.base import Case, CaseResult, NotOffered, Outcome, Unmet
from providers.network.conformance.fuzzing import fuzzed
from providers.network.conformance.probe import Probe
from providers.rest import check_endpoint

EXAMPLES = 20


class Conformance(Value):
    """What came of all cases against the network at ``url``."""

    url: str
    results: tuple[CaseResult, ...]

    def count(self, outcome: Outcome) -> int:
        return sum(result.outcome is outcome for result in self.results)

    @property
    def conforms(self) -> bool:
        """No case failed, and not all were skipped."""
        return self.count(Outcome.FAILED) == 0 and self.count(Outcome.PASSED) > 0


def all_cases() -> tuple[Case, ...]:
    """The one that asks too often comes last."""
    return (
        *market_cases.case.all,
        *bargaining_cases.case.all,
        *holding_cases.case.all,
        *record_cases.case.all,
    )


def open_http(
    url: str, *, timeout: float = 10.0, ca_file: str | None = None, transport: httpx.BaseTransport | None = None
) -> httpx.Client:
    """Raises ConfigurationError for an address that is neither https nor this very machine's."""
    check_endpoint("the address of a network", url)
    verify = ssl.create_default_context(cafile=ca_file) if ca_file else True
    return httpx.Client(base_url=url.rstrip("/"), timeout=timeout, verify=verify, transport=transport)


def check(
    url: str,
    token: str,
    *,
    clock: Clock,
    patience: float = 30.0,
    ca_file: str | None = None,
    transport: httpx.BaseTransport | None = None,
    cases: Sequence[Case] | None = None,
    examples: int | None = None,
    say: Callable[[CaseResult], None] = lambda _: None,
) -> Conformance:
    """``say`` hears every result as it comes.

    ``examples``: requests of each kind that every operation is fuzzed with; 0: none; None: some, where schemathesis is
    installed. Raises ProviderUnavailable when nobody answers at ``url``, MissingPart for fuzzing without schemathesis.
    """
    with open_http(url, ca_file=ca_file, transport=transport) as http:
        _require_somebody(http, url)
        probe, results = Probe(http, token=token, clock=clock, patience=patience), []
        for one in cases if cases is not None else all_cases():
            with probe:
                results.append(judged(one, probe))
            say(results[-1])
        for result in _fuzzed(http, token, clock, examples):
            results.append(result)
            say(result)
    return Conformance(url=url, results=tuple(results))


def _fuzzed(http: httpx.Client, token: str, clock: Clock, examples: int | None) -> Iterable[CaseResult]:
    if examples == 0:
        return ()
    if examples is None and find_spec("schemathesis") is None:
        why = "schemathesis is not installed: pip install schemathesis"
        return (CaseResult(name="fuzz", outcome=Outcome.SKIPPED, expected="answers as described", seen=why),)
    return fuzzed(http, token, clock=clock, examples=EXAMPLES if examples is None else examples)


def judged(one: Case, probe: Probe) -> CaseResult:
    try:
        outcome, seen = Outcome.PASSED, one.judge(probe)
    except NotOffered as nothing:
        outcome, seen = Outcome.SKIPPED, nothing.why
    except Unmet as unmet:
        outcome, seen = Outcome.FAILED, unmet.seen
    except (httpx.HTTPError, ValidationError, ValueError, ArithmeticError) as problem:
        # A network under test may answer anything: that is its failure, not the suite's.
        outcome, seen = Outcome.FAILED, f"an answer that cannot be used: {type(problem).__name__}"
    return CaseResult(name=one.name, outcome=outcome, expected=one.expected, seen=seen)


def _require_somebody(http: httpx.Client, url: str) -> None:
    try:
        http.get("/openapi.json")
    except httpx.TransportError as problem:
        raise ProviderUnavailable(
            f"{url} does not answer", why=f"{type(problem).__name__}: {problem}", next_step="check the address"
        ) from None
