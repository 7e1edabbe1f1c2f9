"""A round that fails ends no process that has more to do: under the real DBOS, on a real store."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from dbos._sys_db import SystemDatabase
from prometheus_client import REGISTRY

from engine import rounds
from engine.clock import ManualClock
from engine.control_plane import ControlPlane
from engine.durable import durable_workflows, unfinished
from engine.errors import BadUsageData, ProviderUnavailable
from engine.model.capacity import CapacityTarget
from engine.retraining.base import Verdict
from engine.round_record import RoundRecord
from engine.store.database import Database
from tests.unit.engine.planner.cases import CELLS, certain, offer, pool
from tests.unit.engine.small_round import HoldingSeller, SmallRound

DOWN = ProviderUnavailable("no provider can be asked", why="503")
WEB = pool()


@dataclass
class Demand:
    """One shard, or what the next entry of ``problems`` is."""

    problems: list[Exception | None] = field(default_factory=list)

    def targets(self) -> tuple[CapacityTarget, ...]:
        problem = self.problems.pop(0) if self.problems else None
        if problem is not None:
            raise problem
        return (certain(WEB, 1),)


@dataclass
class Running:
    plane: ControlPlane
    world: SmallRound
    demand: Demand

    def rounds(self, count: int, *, stays: bool = False) -> list[str]:
        return [record.id for record in self.plane.rounds(count, every_seconds=900, stays=stays)]

    @property
    def failures(self) -> list[str]:
        return [text.removeprefix("round: ") for text in self.world.said if text.startswith("round: ")]


Make = Callable[..., Running]


@pytest.fixture
def make(database: Database, clock: ManualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    with durable_workflows("test", f"sqlite:///{tmp_path / 'workflows.sqlite'}"):

        def one(*problems: Exception | None, retrainer: object = None) -> Running:
            demand = Demand(list(problems))
            seller = HoldingSeller("harbor", clock, offer("harbor-1", "0.05", cell=CELLS[3], available=8), room=8)
            world = SmallRound(database, clock, WEB, seller)
            monkeypatch.setattr(world.demand, "targets", demand.targets)
            monkeypatch.setattr(rounds, "_steps", world.steps)
            nothing = cast(Any, None)
            plane = ControlPlane(
                name="sw", store=nothing, steps=world.steps, fleet=nothing, clock=clock, observe=world._listen, url="",
                retrainer=cast(Any, retrainer),
            )  # fmt: skip
            return Running(plane, world, demand)

        yield one


def failed_rounds() -> float:
    return REGISTRY.get_sample_value("shardwright_rounds_total", {"outcome": "ProviderUnavailable"}) or 0


def test_a_round_that_fails_is_told_and_the_next_one_comes_when_it_is_due(make: Make, clock: ManualClock) -> None:
    running, before, began = make(DOWN, None, None), failed_rounds(), clock.now()
    assert running.rounds(3) == ["sw-round-2", "sw-round-3"]
    assert running.failures == ["failed: no provider can be asked; 503; the next one begins in 900 s"]
    assert clock.now() - began >= timedelta(seconds=1800)
    assert failed_rounds() == before + 1


def test_the_last_one_raises_what_stopped_it(make: Make) -> None:
    running, before = make(None, DOWN), failed_rounds()
    made: list[RoundRecord] = []
    with pytest.raises(ProviderUnavailable, match="503"):
        made.extend(running.plane.rounds(2))
    assert running.failures == []
    assert failed_rounds() == before + 1


def test_the_only_one_raises_at_once(make: Make) -> None:
    with pytest.raises(ProviderUnavailable, match="503"):
        make(DOWN).rounds(1)


def test_who_stays_up_raises_nothing_whatever_it_was(make: Make) -> None:
    running = make(BadUsageData("cut off"), KeyError("a defect"))
    assert running.rounds(2, stays=True) == []
    assert running.failures == [
        "failed: cut off; the next one begins in 900 s",
        "failed: KeyError: 'a defect'; what is there is served on, without further rounds",
    ]


def test_what_a_failed_round_held_is_given_back_before_the_next(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    running = make()
    seller = running.world.steps.providers["harbor"]
    refused = iter([ProviderUnavailable("the preview failed")])
    gate = type(running.world.steps).gate
    held: list[int] = []

    def failing(steps: Any, plan: Any) -> None:
        held.append(len(cast(HoldingSeller, seller).held))
        problem = next(refused, None)
        if problem is not None:
            monkeypatch.setattr(type(running.world.steps), "release", lambda *_: None)  # it dies before it could
            raise problem
        gate(steps, plan)

    monkeypatch.setattr(type(running.world.steps), "gate", failing)
    assert running.rounds(2) == ["sw-round-2"]
    assert held == [1, 1]


def test_a_failure_that_could_not_be_written_down_stands_in_no_ones_way(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The full disk is full for the workflows' database as well: to it the round still runs."""
    running = make(OSError(28, "No space left on device"), None)
    write = SystemDatabase.update_workflow_outcome
    full = iter([OSError(28, "No space left on device")])

    def writing(database: SystemDatabase, *args: Any, **kwargs: Any) -> Any:
        problem = next(full, None)
        if problem is not None:
            raise problem
        return write(database, *args, **kwargs)

    monkeypatch.setattr(SystemDatabase, "update_workflow_outcome", writing)
    assert running.rounds(3)[-1] == "sw-round-2"
    assert unfinished("round") == []


@dataclass
class Unsure:
    problem: Exception

    def due(self) -> Verdict:
        raise self.problem


@pytest.mark.parametrize(
    ("problem", "told"),
    [(BadUsageData("it is being rewritten"), "it is being rewritten"), (OSError("no space"), "OSError: no space")],
)
def test_a_round_is_done_though_no_retraining_can_be_begun(make: Make, problem: Exception, told: str) -> None:
    running = make(retrainer=Unsure(problem))
    assert running.rounds(1) == ["sw-round-1"]
    assert running.world.said[-1] == f"retraining: cannot be begun: {told}"
