"""The steps on generated usage, without a workflow around them."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from engine.clock import ManualClock
from engine.errors import BadUsageData
from engine.retraining.base import Candidate, Cause, Comparison, Retraining
from engine.retraining.decision import RetrainingTerms
from forecasting.base import History, until
from forecasting.comparison import training_part
from forecasting.demand import Histories
from forecasting.registry import usage_fingerprint
from forecasting.retraining import Leaving, UsageRetraining, judged
from forecasting.synthetic import synthetic_fleet
from tests.contract.forecaster_contract import hourly

HORIZON = 12


@pytest.fixture(scope="module")
def usage() -> list[History]:
    fleet = synthetic_fleet(3, seed=5, days=35)
    return [History(h.series_id, h.start, h.freq, h.values) for h in fleet]


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forecasting.network.TUNING_STEPS", 20)


def steps(
    folder: Path, usage: Sequence[History], clock: ManualClock, terms: RetrainingTerms | None = None, seed: int = 1
) -> UsageRetraining:
    return UsageRetraining(
        folder, read=lambda: Histories(tuple(usage), "cpu_cores"), terms=terms or RetrainingTerms(), horizon=HORIZON,
        budget_seconds=60, seed=seed, clock=clock,
    )  # fmt: skip


def run(made: UsageRetraining, *, asked: bool = True) -> Retraining:
    taken = made.take("k")
    verdict = made.decide(taken, asked)
    model = made.train(taken)
    return made.conclude(taken, verdict, Candidate(model=model, comparison=made.evaluate(taken, model)))


def test_training_on_own_usage_is_judged_beside_the_shipped_network(
    tmp_path: Path, usage: list[History], still: ManualClock
) -> None:
    made = steps(tmp_path, usage, still, RetrainingTerms(min_gain=0.0))
    record = run(made, asked=False)
    assert (record.cause, record.version, record.series) == (Cause.FIRST, 1, 3)
    assert record.comparison is not None
    assert record.comparison.incumbent_name == "shipped"
    assert record.comparison.origins == 48
    assert record.promoted == (record.comparison.candidate <= record.comparison.incumbent)
    assert record.comparison.candidate < 1  # it beats seasonal naive on days that it never saw
    assert f"{record.comparison.candidate:.3f}, shipped {record.comparison.incumbent:.3f}" in record.outcome


def test_every_step_may_be_done_again(tmp_path: Path, usage: list[History], still: ManualClock) -> None:
    made = steps(tmp_path, usage, still)
    taken = made.take("k")
    assert made.take("k") == taken
    assert taken.fingerprint == usage_fingerprint(usage, "cpu_cores")
    model = made.train(taken)
    written = (tmp_path / model / "model.pt").stat().st_mtime_ns
    assert made.train(taken) == model
    assert (tmp_path / model / "model.pt").stat().st_mtime_ns == written
    candidate = Candidate(model=model, comparison=made.evaluate(taken, model))
    verdict = made.decide(taken, True)
    first = made.conclude(taken, verdict, candidate)
    still.advance(timedelta(hours=1))
    assert made.conclude(taken, verdict, candidate) == first
    assert "exactly this usage" in made.decide(taken, True).why
    made.leave("k")
    made.leave("k")
    with pytest.raises(BadUsageData, match="training set"):
        made.train(taken)


def test_a_candidate_that_learnt_nothing_is_not_promoted(
    tmp_path: Path, usage: list[History], still: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forecasting.network.TUNING_RATE", 1e-12)
    record = run(steps(tmp_path, usage, still))
    assert not record.promoted
    assert record.comparison is not None
    assert record.comparison.candidate == pytest.approx(record.comparison.incumbent, rel=0.02)


@pytest.mark.parametrize(
    ("candidate", "incumbent", "min_gain", "promoted"),
    [(0.7, 0.8, 0.0, True), (0.8, 0.7, 0.0, False), (0.79, 0.8, 0.05, False), (0.76, 0.8, 0.05, True)],
)
def test_promotion_only_when_better(candidate: float, incumbent: float, min_gain: float, promoted: bool) -> None:
    found = Comparison(candidate=candidate, incumbent=incumbent, incumbent_name="version 3", series=2, origins=9)
    answer, why = judged(Candidate(model="m", comparison=found), min_gain)
    assert answer is promoted
    assert why == (
        f"loss beside seasonal naive {candidate:.3f}, version 3 {incumbent:.3f}, on 9 held-out origins of 2 series"
    )
    assert judged(Candidate(model="", comparison=None, failure="too little"), 0.0) == (False, "too little")


def test_drift_on_new_usage_asks_for_a_training(tmp_path: Path, usage: list[History], still: ManualClock) -> None:
    run(steps(tmp_path, [until(history, 33 * 24) for history in usage], still))
    later = steps(tmp_path, usage, still)
    assert later.decide(later.take("k"), False).cause is None  # two days on, it still fits
    swapped = [
        hourly(np.concatenate([h.values[: 33 * 24], _unforeseen(h)]), h.series_id) for h in usage
    ]  # two days that go on as last week did to the last digit, for three weeks: seasonal naive errs by nothing
    drifted = steps(tmp_path, swapped, still)
    verdict = drifted.decide(drifted.take("k"), False)
    assert verdict.cause is Cause.DRIFT
    assert "what seasonal naive does (limit 1)" in verdict.why


def _unforeseen(history: History) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """Three weeks of one arbitrary week."""
    week = history.values.mean() * np.random.default_rng(3).lognormal(0, 1.0, 168)
    return np.tile(week, 3)


def test_the_next_candidate_starts_from_the_one_that_stands(
    tmp_path: Path, usage: list[History], still: ManualClock
) -> None:
    first = run(steps(tmp_path, [until(history, 30 * 24) for history in usage], still, RetrainingTerms(min_gain=-1.0)))
    assert first.promoted
    second = run(steps(tmp_path, usage, still))
    assert second.comparison is not None
    assert (second.version, second.comparison.incumbent_name) == (2, "version 1")


def test_a_process_that_leaves_gives_the_training_up(tmp_path: Path, usage: list[History], still: ManualClock) -> None:
    made = steps(tmp_path, usage, still)
    taken = made.take("k")
    made.close()
    with pytest.raises(Leaving):
        made.train(taken)
    assert made.due().cause is None
    model = steps(tmp_path, usage, still).train(taken)
    assert (tmp_path / model).is_dir()


@pytest.mark.parametrize("values", [np.full(600, 3.0), np.arange(20.0)], ids=["flat", "short"])
def test_usage_that_cannot_be_judged_is_refused(
    tmp_path: Path, values: "np.ndarray[tuple[int], np.dtype[np.float64]]", still: ManualClock
) -> None:
    made = steps(tmp_path, [hourly(values)], still)
    taken = made.take("k")
    with pytest.raises(BadUsageData):
        made.evaluate(taken, made.train(taken))


def test_series_without_a_value_are_not_taken(tmp_path: Path, usage: list[History], still: ManualClock) -> None:
    dead = hourly(np.full(400, np.nan), "dead")
    made = steps(tmp_path, [dead, *usage], still)
    assert made.take("k").fingerprint == usage_fingerprint(usage, "cpu_cores")
    with pytest.raises(BadUsageData, match="no series"):
        steps(tmp_path, [dead], still).take("k")


def test_training_never_sees_the_end_that_is_judged_on(usage: list[History]) -> None:
    for history in usage:
        assert training_part(history, HORIZON).end <= history.end - timedelta(days=5)
