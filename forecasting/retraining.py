"""The steps of a retraining on real usage; each finds its own traces when it is run again."""

import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np

from engine.clock import Clock
from engine.errors import BadUsageData
from engine.retraining.base import Candidate, Comparison, Retraining, UsageTaken, Verdict
from engine.retraining.decision import Known, RetrainingTerms, decide, not_ready
from forecasting.base import History
from forecasting.champion import chosen
from forecasting.comparison import REFERENCE, side_by_side, training_part
from forecasting.demand import Expected, Histories
from forecasting.drift import drift_of
from forecasting.network import Network, tuning_plan
from forecasting.pretrained import pretrained
from forecasting.promotions import Promotions
from forecasting.registry import fingerprint, load_or_train, usage_fingerprint
from forecasting.rnn.train import TrainingPlan
from forecasting.rnn.trained import TrainedRnn
from forecasting.training_sets import TrainingSets
from forecasting.usage import with_values


class Leaving(BaseException):
    """The process ends: the step is given up unrecorded, and done anew by the next one. No Exception, so that it passes
    for neither a failure nor a result."""


class UsageRetraining:
    """``engine.retraining.base.RetrainingSteps`` and ``Retrainer``. ``last_seen``: what the newest round forecast from
    (None: none in this process yet); ``read`` brings usage anew."""

    def __init__(
        self,
        root: Path,
        *,
        read: Callable[[], Histories],
        last_seen: Callable[[], Expected | None] = lambda: None,
        terms: RetrainingTerms,
        horizon: int,
        budget_seconds: float,
        seed: int,
        clock: Clock,
    ) -> None:
        self._promotions = Promotions(root)
        self._sets = TrainingSets(self._promotions.folder / "sets")
        self._read, self._last_seen, self._terms, self._clock = read, last_seen, terms, clock
        self._horizon, self._budget, self._seed = horizon, budget_seconds, seed
        self._leaving = threading.Event()

    def close(self) -> None:
        """A training under way stops at its next step."""
        self._leaving.set()

    def due(self) -> Verdict:
        seen = self._last_seen()
        if seen is None:
            return Verdict(cause=None, why="no forecast was made in this process yet")
        taken = _taken("", seen.usage.metric, with_values(seen.usage.histories)[0])
        return decide(self._known(taken, seen.drift.ratio if seen.drift else None), self._terms, self._clock.now())

    def take(self, key: str) -> UsageTaken:
        seen = self._last_seen()
        usage = seen.usage if seen else self._read()
        histories, left_out = with_values(usage.histories)
        if not histories:
            raise BadUsageData("no series of the usage holds a value", why=", ".join(left_out[:8]))
        self._sets.save(key, usage.metric, histories)
        return _taken(key, usage.metric, histories)

    def decide(self, taken: UsageTaken, asked: bool) -> Verdict:
        known, now = self._known(taken, None), self._clock.now()
        verdict = decide(known, self._terms, now, asked=asked)
        if verdict.cause is not None or known.last is None or not_ready(known, self._terms):
            return verdict
        drift = self._drift(taken)
        return decide(known.model_copy(update={"drift": drift}), self._terms, now, asked=asked)

    def train(self, taken: UsageTaken) -> str:
        incumbent = self._incumbent(taken)
        start = incumbent.rnn if incumbent else None
        parts = [training_part(history, self._horizon) for history in self._sets.load(taken.key).histories]
        parts = [part for part in parts if np.isfinite(part.values).any()]
        if not parts:
            raise BadUsageData("nothing can be held out", why="every series is too short for that")
        plan = (
            tuning_plan(start, self._budget, self._seed)
            if start
            else TrainingPlan(horizon=self._horizon, budget_seconds=self._budget, seed=self._seed)
        )
        load_or_train(self._promotions.registry, parts, plan, clock=_Stoppable(self._clock, self._leaving), start=start)
        return fingerprint(parts, plan)

    def evaluate(self, taken: UsageTaken, model: str) -> Comparison:
        candidate = self._promotions.registry.find(model)
        if candidate is None:
            raise BadUsageData(f"the network {model} is gone from {self._promotions.registry.root}")
        incumbent = self._incumbent(taken)
        networks = [candidate, *([incumbent.rnn] if incumbent and incumbent.rnn else [])]
        standings = side_by_side(networks, self._sets.load(taken.key).histories, self._horizon)
        if not standings.series:
            raise BadUsageData("there is nothing to compare on", why="no series has demand in a held-out end")
        return Comparison(
            candidate=standings.ratios[0],
            incumbent=standings.ratios[1] if incumbent else 1.0,
            incumbent_name=incumbent.name if incumbent else REFERENCE,
            series=standings.series,
            origins=standings.origins,
        )

    def conclude(self, taken: UsageTaken, verdict: Verdict, candidate: Candidate) -> Retraining:
        assert verdict.cause is not None
        promoted, outcome = judged(candidate, self._terms.min_gain)
        return self._promotions.add(
            Retraining(
                version=0,
                fingerprint=taken.fingerprint,
                metric=taken.metric,
                step=taken.step,
                series=taken.series,
                values=taken.values,
                measured_end=taken.measured_end,
                cause=verdict.cause,
                why=verdict.why,
                ended_at=self._clock.now(),
                model=candidate.model,
                comparison=candidate.comparison,
                promoted=promoted,
                outcome=outcome,
            )
        )

    def leave(self, key: str) -> None:
        self._sets.drop(key)

    def _known(self, taken: UsageTaken, drift: float | None) -> Known:
        records = self._promotions.of(taken.metric, taken.step)
        same = next((one for one in records if one.fingerprint == taken.fingerprint), None)
        return Known(
            fingerprint=taken.fingerprint,
            values=taken.values,
            measured_end=taken.measured_end,
            synthetic=taken.synthetic,
            last=same or (records[-1] if records else None),
            drift=drift,
        )

    def _drift(self, taken: UsageTaken) -> float | None:
        standing = self._incumbent(taken)
        if standing is None:
            return None
        found = drift_of(chosen(standing, self._sets.load(taken.key).histories, self._horizon).choices)
        return found.ratio if found else None

    def _incumbent(self, taken: UsageTaken) -> Network | None:
        standing = self._promotions.standing(taken.metric, taken.step, self._horizon)
        if standing is not None:
            return standing
        shipped: TrainedRnn | None = pretrained(taken.step, self._horizon)
        return Network(shipped, loaded=True, origin="shipped") if shipped else None


def judged(candidate: Candidate, min_gain: float) -> tuple[bool, str]:
    """Whether to promote, and why. Pure."""
    found = candidate.comparison
    if found is None:
        return False, candidate.failure
    promoted = found.candidate <= found.incumbent * (1 - min_gain)
    words = f"loss beside seasonal naive {found.candidate:.3f}, {found.incumbent_name} {found.incumbent:.3f}"
    return promoted, f"{words}, on {found.origins} held-out origins of {found.series} series"


def _taken(key: str, metric: str, histories: Sequence[History]) -> UsageTaken:
    return UsageTaken(
        key=key,
        fingerprint=usage_fingerprint(histories, metric),
        metric=metric,
        step=histories[0].freq,
        series=len(histories),
        values=sum(int(np.isfinite(history.values).sum()) for history in histories),
        measured_end=max(history.measured_end for history in histories),
        synthetic=all(history.synthetic for history in histories),
    )


class _Stoppable:
    """A clock that a training looks at before each of its steps."""

    def __init__(self, clock: Clock, leaving: threading.Event) -> None:
        self._clock, self._leaving = clock, leaving

    def now(self) -> datetime:
        if self._leaving.is_set():
            raise Leaving
        return self._clock.now()

    def sleep(self, seconds: float) -> None:
        self._clock.sleep(seconds)
