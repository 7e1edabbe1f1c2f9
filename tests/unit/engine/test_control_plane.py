from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from engine import control_plane
from engine.clock import ManualClock
from engine.control_plane import ControlPlane
from engine.fleet.nodes import Fleet
from engine.model.capacity import Resources
from engine.model.ids import CellId, NodeId
from engine.model.market import PurchaseOption, ReclaimNotice
from engine.model.money import usd
from engine.model.placement import Node, NodeState
from engine.store.opened import Store, opened_store

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Plane:
    """A control plane of which only the hearing of notices is used; evacuations are counted, not run."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.evacuated: list[ReclaimNotice] = []
        self.said: list[str] = []
        nothing = cast(Any, None)
        self.map = store.shard_map
        for name, cell in (("sw-n1", "agora/a/us"), ("sw-n2", "aws/a/eu")):
            self.map.put_node(
                Node(
                    id=NodeId(name),
                    cell=CellId(cell),
                    zone="z",
                    instance_type="m",
                    option=PurchaseOption.ON_DEMAND,
                    hourly_price=usd("0.1"),
                    resources=Resources(vcpus=2, memory_gib=4),
                    state=NodeState.JOINED,
                )
            )
        fleet = Fleet(
            shard_map=store.shard_map, tokens=nothing, agents=nothing, clock=ManualClock(NOW), settings_for=nothing
        )
        monkeypatch.setattr(control_plane, "start_evacuation", self.evacuated.append)
        begun: Callable[[NodeId], bool] = lambda node: node in {one.node for one in self.evacuated}  # noqa: E731
        monkeypatch.setattr(control_plane, "evacuation_begun", begun)
        self.plane = ControlPlane(
            name="sw",
            store=store,
            steps=nothing,
            fleet=fleet,
            clock=ManualClock(NOW),
            observe=lambda event: self.said.append(event.text),
            url="",
        )


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plane]:
    with opened_store(f"sqlite:///{tmp_path}/control.sqlite", ManualClock(NOW)) as store:
        yield Plane(store, monkeypatch)


def _told(node: str, provider: str = "agora") -> ReclaimNotice:
    return ReclaimNotice(
        node=NodeId(node), provider=provider, seen_at=NOW, at=NOW + timedelta(seconds=30), reason="maintenance"
    )


def test_a_providers_own_notice_begins_the_evacuation_once(fleet: Plane) -> None:
    fleet.plane.on_reclaim(_told("sw-n1"))
    fleet.plane.on_reclaim(_told("sw-n1"))
    (evacuated,) = fleet.evacuated
    assert (evacuated.node, evacuated.at, evacuated.reason) == ("sw-n1", NOW + timedelta(seconds=30), "maintenance")
    assert fleet.map.node(NodeId("sw-n1")).state is NodeState.RECLAIMING
    assert fleet.said == ["agora takes sw-n1 back in 30 s: maintenance"]


def test_a_provider_cannot_take_back_what_is_not_its_own(fleet: Plane) -> None:
    fleet.plane.on_reclaim(_told("sw-n2"))
    assert fleet.evacuated == []
    assert fleet.map.node(NodeId("sw-n2")).state is NodeState.JOINED
    assert fleet.said == ["agora says that sw-n2 is taken back, which is a node of aws/a/eu: ignored"]


def test_a_notice_for_a_node_that_nobody_knows_or_that_is_gone(fleet: Plane) -> None:
    fleet.plane.on_reclaim(_told("other-n7"))
    fleet.map.update_node(NodeId("sw-n1"), state=NodeState.GONE)
    fleet.plane.on_reclaim(_told("sw-n1"))
    assert (fleet.evacuated, fleet.said) == ([], [])
