"""Cases times policies: every play, what it came to, and how it stands against the bound and the best baseline.

A ``Job`` is one play, pure and picklable, so that jobs may run in any order and on any machine.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from math import exp, log
from time import perf_counter

import numpy as np

from engine.errors import PlayFailed, ScaleOutFailed, ShardwrightError
from engine.model.value import Value
from forecasting.scale.spread import IN_PROCESS, Spread
from lab.bound import Bound, clairvoyant_bound
from lab.case import Case
from lab.host import play
from lab.inputs import Inputs
from lab.play_host import CommandPolicy
from lab.policies.registry import BASELINES, policy_of
from lab.regret import Regret, regret_of
from lab.tally import Result
from lab.timed_policy import TimedPolicy

COMMAND = "command"
"""The name under which an outside program plays."""


@dataclass(frozen=True)
class Job:
    """``command``: the program to play with, when ``policy`` is ``COMMAND``."""

    case: Case
    bound: Bound
    policy: str
    seed: int = 0
    command: str | None = None


class Played(Value):
    """``cost_to_bound``: cost / clairvoyant bound; None where the bound is 0. Times in seconds, of the policy alone."""

    policy: str
    result: Result
    regret: Regret
    cost_to_bound: float | None
    init_seconds: float
    answer_p95_seconds: float
    seconds: float


class CaseReport(Value):
    """``best_baseline``: the cheapest baseline that keeps the risk; None when none does."""

    case: str
    title: str
    fingerprint: str
    bound: Bound
    best_baseline: str | None
    played: tuple[Played, ...]

    def of(self, policy: str) -> Played:
        return next(each for each in self.played if each.policy == policy)

    def to_best(self, policy: str) -> float | None:
        """Cost / that of the best baseline that keeps the risk."""
        if self.best_baseline is None:
            return None
        return _ratio(self.of(policy).result.cost, self.of(self.best_baseline).result.cost)


class Standing(Value):
    """One policy over all cases: geometric means; in how many cases it kept the risk."""

    policy: str
    cost_to_bound: float | None
    cost_to_best: float | None
    kept: int
    cases: int


class LabReport(Value):
    """With ``seed``, ``policies`` and the cases' fingerprints, everything that is needed to repeat it; ``inputs`` says
    it as a command, with the files that the cases came from."""

    seed: int
    policies: tuple[str, ...]
    command: str | None
    notes: tuple[str, ...] = ()
    inputs: Inputs | None = None
    cases: tuple[CaseReport, ...]
    standings: tuple[Standing, ...]
    best_baselines: float | None
    """Geometric mean over cases of the best baseline's cost / bound; None where a case has none."""


def run_lab(
    cases: Sequence[Case],
    policies: Sequence[str],
    *,
    seed: int = 0,
    command: str | None = None,
    notes: Sequence[str] = (),
    inputs: Inputs | None = None,
    spread: Spread = IN_PROCESS,
    tell: Callable[[str], None] = lambda _: None,
) -> LabReport:
    """Play every case with every policy, and with ``command`` where there is one. ``tell`` hears each bound and play.

    Raises what a policy raises on purpose; PlayFailed, which names case and policy, for all else that goes wrong in a
    play, and when the play was lost with its worker.
    """
    known = list(zip(cases, _bounds(cases, spread, tell), strict=True))
    named = (*policies, *((COMMAND,) if command else ()))
    jobs = [Job(case, bound, name, seed, command) for case, bound in known for name in named]
    played = list(_told(spread.map(_played, None, jobs, what="playing"), jobs, tell))
    reports = []
    for at, (case, bound) in enumerate(known):
        reports.append(_of_case(case, bound, played[at * len(named) : (at + 1) * len(named)]))
    return LabReport(
        seed=seed,
        policies=tuple(policies),
        command=command,
        notes=tuple(notes),
        inputs=inputs,
        cases=tuple(reports),
        standings=tuple(_standing(name, reports) for name in named),
        best_baselines=_mean([r.of(r.best_baseline).cost_to_bound if r.best_baseline else None for r in reports]),
    )


def _bounds(cases: Sequence[Case], spread: Spread, tell: Callable[[str], None]) -> Iterator[Bound]:
    for bound in spread.map(_bound, None, cases, what="bounding"):
        tell(f"bound of {bound.case}: {bound.cost:.2f} USD")
        yield bound


def _bound(_shared: None, case: Case) -> Bound:
    """A piece of work."""
    return clairvoyant_bound(case)


def _played(_shared: None, job: Job) -> Played:
    """A piece of work; what fails in it is named here, since another process does not keep where it failed."""
    try:
        return play_job(job)
    except ShardwrightError:
        raise
    except Exception as problem:
        raise _failed(
            job, f"{type(problem).__name__}: {problem}", f"play it alone: --policies {job.policy} --engine local"
        ) from problem


def _failed(job: Job, why: str, next_step: str) -> PlayFailed:
    return PlayFailed(f"{job.case.id} could not be played with {job.policy}", why=why, next_step=next_step)


def play_job(job: Job) -> Played:
    began = perf_counter()
    if job.policy == COMMAND:
        with CommandPolicy(job.command or "") as program:
            timed = TimedPolicy(program)
            result = play(job.case, timed, name=COMMAND, seed=job.seed, on_end=program.end)
    else:
        timed = TimedPolicy(policy_of(job.policy))
        result = play(job.case, timed, name=job.policy, seed=job.seed)
    return Played(
        policy=job.policy,
        result=result,
        regret=regret_of(job.case, result, job.bound),
        cost_to_bound=_ratio(result.cost, job.bound.cost),
        init_seconds=timed.init_seconds,
        answer_p95_seconds=float(np.quantile(timed.answer_seconds, 0.95)),
        seconds=perf_counter() - began,
    )


def _told(played: Iterable[Played], jobs: Sequence[Job], tell: Callable[[str], None]) -> Iterator[Played]:
    """They come in the order of their jobs."""
    at = 0
    try:
        for at, each in enumerate(played, start=1):
            risk = "keeps the risk" if each.result.keeps_risk else "breaks the risk"
            tell(f"{at}/{len(jobs)} {each.result.case} {each.policy}: {each.result.cost:.2f} USD, {risk}")
            yield each
    except ScaleOutFailed as problem:
        raise _failed(jobs[at], str(problem), problem.next_step) from problem


def _of_case(case: Case, bound: Bound, played: Sequence[Played]) -> CaseReport:
    keeping = [each for each in played if each.policy in BASELINES and each.result.keeps_risk]
    best = min(keeping, key=lambda each: each.result.cost, default=None)
    return CaseReport(
        case=case.id,
        title=case.title,
        fingerprint=case.fingerprint,
        bound=bound,
        best_baseline=best.policy if best else None,
        played=tuple(played),
    )


def _standing(policy: str, reports: Sequence[CaseReport]) -> Standing:
    return Standing(
        policy=policy,
        cost_to_bound=_mean([report.of(policy).cost_to_bound for report in reports]),
        cost_to_best=_mean([report.to_best(policy) for report in reports]),
        kept=sum(report.of(policy).result.keeps_risk for report in reports),
        cases=len(reports),
    )


def _ratio(cost: Decimal, least: Decimal) -> float | None:
    return float(cost / least) if least else None


def _mean(ratios: Sequence[float | None]) -> float | None:
    """Geometric; None where one is missing or not above 0."""
    known = [ratio for ratio in ratios if ratio is not None and ratio > 0]
    return exp(sum(map(log, known)) / len(known)) if known and len(known) == len(ratios) else None
