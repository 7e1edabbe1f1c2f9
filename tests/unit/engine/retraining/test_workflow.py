"""The workflow under the real DBOS, with steps that count."""

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from dbos import DBOS
from prometheus_client import REGISTRY

from engine import control_plane
from engine.clock import ManualClock
from engine.control_plane import ControlPlane
from engine.durable import durable_workflows, unfinished
from engine.errors import BadUsageData
from engine.events import Event
from engine.retraining.base import Candidate, Cause, Comparison, Retraining, UsageTaken, Verdict
from engine.retraining.workflow import NAME, next_key, serve, start_retraining
from tests.retraining_cases import NOW, compared, record, usage_taken

DUE = Verdict(cause=Cause.DRIFT, why="drift")


@DBOS.workflow(name="round-of-a-test")
def quick_round(round_id: str) -> str:
    return round_id


@dataclass
class Steps:
    verdict: Verdict = DUE
    calls: Counter[str] = field(default_factory=Counter)
    failing: dict[str, Exception] = field(default_factory=dict)
    may_train: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.may_train.set()

    def due(self) -> Verdict:
        return self.verdict

    def take(self, key: str) -> UsageTaken:
        self._called("take")
        return usage_taken(key)

    def decide(self, taken: UsageTaken, asked: bool) -> Verdict:
        self._called("decide")
        return Verdict(cause=Cause.ASKED, why="asked") if asked else self.verdict

    def train(self, taken: UsageTaken) -> str:
        self._called("train")
        assert self.may_train.wait(30)
        return f"model-of-{taken.fingerprint}"

    def evaluate(self, taken: UsageTaken, model: str) -> Comparison:
        self._called("evaluate")
        return compared(0.7, 0.8)

    def conclude(self, taken: UsageTaken, verdict: Verdict, candidate: Candidate) -> Retraining:
        self._called("conclude")
        promoted = candidate.comparison is not None
        return record(promoted=promoted).model_copy(update={"outcome": candidate.failure or "better"})

    def leave(self, key: str) -> None:
        self._called("leave")

    def _called(self, name: str) -> None:
        self.calls[name] += 1
        if name in self.failing:
            raise self.failing[name]


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def steps(tmp_path: Path, events: list[Event]) -> Iterator[Steps]:
    served = Steps()
    serve(served, events.append)
    with durable_workflows("test", f"sqlite:///{tmp_path / 'workflows.sqlite'}"):
        yield served


def texts(events: list[Event]) -> list[str]:
    assert {event.step for event in events} <= {"retraining"}
    return [event.text for event in events]


def test_every_step_once_however_often_it_is_asked_for(steps: Steps, events: list[Event]) -> None:
    before = REGISTRY.get_sample_value("shardwright_retrainings_total", {"cause": "first", "outcome": "promoted"}) or 0
    key = next_key("sw")
    reports = [start_retraining(key).get_result() for _ in range(2)]
    assert reports[0] == reports[1]
    assert reports[0].record is not None
    assert dict(steps.calls) == dict.fromkeys(("take", "decide", "train", "evaluate", "conclude", "leave"), 1)
    assert texts(events) == ["drift: drift; 3 series of cpu_cores", "version 1 is promoted: better"]
    after = REGISTRY.get_sample_value("shardwright_retrainings_total", {"cause": "first", "outcome": "promoted"})
    assert after == before + 1
    promoted_at = REGISTRY.get_sample_value("shardwright_model_promoted_timestamp_seconds")
    assert promoted_at == reports[0].record.ended_at.timestamp()
    assert (key, next_key("sw")) == ("sw-retrain-1", "sw-retrain-2")


def test_what_is_not_due_trains_nothing_unless_asked_for(steps: Steps, events: list[Event]) -> None:
    steps.verdict = Verdict(cause=None, why="yesterday")
    report = start_retraining("a").get_result()
    assert (report.record, report.verdict.why) == (None, "yesterday")
    assert (steps.calls["train"], steps.calls["leave"]) == (0, 1)
    assert texts(events) == ["not now: yesterday"]
    assert start_retraining("b", asked=True).get_result().record is not None


def test_usage_that_cannot_be_trained_on_is_recorded(steps: Steps, events: list[Event]) -> None:
    steps.failing["train"] = BadUsageData("too little history", why="3 windows")
    report = start_retraining("a").get_result()
    assert report.record is not None
    assert not report.record.promoted
    assert (steps.calls["evaluate"], steps.calls["conclude"], steps.calls["leave"]) == (0, 1, 1)
    assert texts(events)[-1] == "version 1 is not promoted: too little history; 3 windows"


@pytest.mark.parametrize("problem", [BadUsageData("no usage"), RuntimeError("a bug")])
def test_any_other_failure_is_told_and_leaves_nothing(steps: Steps, events: list[Event], problem: Exception) -> None:
    steps.failing["take"] = problem
    with pytest.raises(type(problem)):
        start_retraining("a").get_result()
    assert texts(events) == [f"retraining a failed: {problem}"]
    assert (steps.calls["train"], steps.calls["leave"]) == (0, 1)


class Leaving(BaseException):
    pass


def test_a_step_that_is_given_up_is_not_recorded(steps: Steps) -> None:
    steps.failing["train"] = cast(Exception, Leaving())
    handle = start_retraining("a")
    with pytest.raises(Leaving):
        handle.get_result()
    assert (unfinished(NAME), steps.calls["leave"]) == (["a"], 0)


def plane(steps: Steps, events: list[Event]) -> ControlPlane:
    parts = cast(Any, type("Parts", (), {"recover": lambda _: None})())
    nothing = cast(Any, None)

    def observe(event: Event) -> None:
        events.append(event)
        if event.text.startswith("waiting"):
            steps.may_train.set()

    return ControlPlane(
        name="sw", store=nothing, steps=parts, fleet=nothing, clock=ManualClock(NOW), observe=observe, url="",
        retrainer=steps,
    )  # fmt: skip


def test_rounds_go_on_beside_a_retraining_and_wait_for_it_at_the_end(
    steps: Steps, events: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_plane, "run_round", quick_round)
    monkeypatch.setattr(ControlPlane, "_next_id", lambda _: f"round-{len(done) + 1}")
    done: list[object] = []
    steps.may_train.clear()
    rounds = plane(steps, events).rounds(3)
    done.extend(next(rounds) for _ in range(3))
    assert unfinished(NAME) == ["sw-retrain-1"]  # one at a time, however often it is due
    assert list(rounds) == []
    assert unfinished(NAME) == []
    assert (steps.calls["train"], len(done)) == (1, 3)
    said = texts(events)
    assert said[0] == "due: drift"
    assert "waiting for sw-retrain-1" in said  # only then may it train
    assert said[-1] == "version 1 is promoted: better"


def test_nothing_starts_that_is_not_due(steps: Steps, events: list[Event], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_plane, "run_round", quick_round)
    monkeypatch.setattr(ControlPlane, "_next_id", lambda _: "only")
    steps.verdict = Verdict(cause=None, why="yesterday")
    assert len(list(plane(steps, events).rounds(1))) == 1
    assert (events, steps.calls) == ([], Counter())
