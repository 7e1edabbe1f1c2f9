"""A world for evacuations: a real store, moves that only change the map, and a fleet whose nodes may be silent."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

from engine.clock import ManualClock
from engine.errors import ProviderUnavailable
from engine.fleet.nodes import Fleet
from engine.model.ids import NodeId, PoolId, ShardId
from engine.model.market import ReclaimNotice
from engine.model.move import MovePhase, MoveReport, MoveRequest, MoveUnderWay
from engine.model.placement import NodeState, Shard, ShardState
from engine.store.shard_map import ShardMap
from tests.small_orders import AWS, NOW, SMALL, a_report

NOTICE = ReclaimNotice(node=AWS, provider="aws", seen_at=NOW, at=NOW + timedelta(seconds=30))


Evacuated = Callable[[], tuple[MoveReport, ...]]


@dataclass
class World:
    """Two components on the AWS node (tests.small_orders); stands in for the fleet."""

    clock: ManualClock
    shard_map: ShardMap
    silent: set[NodeId] = field(default_factory=set)
    released: list[ShardId] = field(default_factory=list)
    fleet: Fleet = field(init=False)
    moved: list[MoveRequest] = field(default_factory=list)
    others: MoveUnderWay | None = None
    """A move that somebody else has begun."""
    others_take: timedelta = timedelta(seconds=8)
    others_end: MovePhase = MovePhase.CLEANED
    given_back: list[NodeId] = field(default_factory=list)
    full: set[NodeId] = field(default_factory=set)
    """Nodes that refuse what the map has room for."""
    tried: list[tuple[ShardId, NodeId]] = field(default_factory=list)
    in_doubt: list[MoveReport] = field(default_factory=list)
    settles: timedelta = timedelta(hours=1)
    """When what is in doubt turns out to have stayed where it was."""

    def __post_init__(self) -> None:
        self.fleet = Fleet(
            shard_map=self.shard_map, tokens=cast(Any, None), agents=cast(Any, self._agent), clock=self.clock,
            settings_for=cast(Any, None),
        )  # fmt: skip

    def _agent(self, node: NodeId) -> Any:
        if node in self.silent:
            raise ProviderUnavailable(f"node {node} does not answer")
        return SimpleNamespace(release=lambda _shard, _epoch: None)

    def gone(self, node: NodeId) -> bool:
        return self.shard_map.node(node).state is NodeState.GONE

    def bought(self, node: NodeId) -> None:
        """Gives back what was paid for a node."""
        self.given_back.append(node)

    def under_way(self) -> tuple[MoveUnderWay, ...]:
        if self.others is not None and self.clock.now() >= NOW + self.others_take:
            request, self.others = self.others.progress.request, None
            if self.others_end is MovePhase.CLEANED:
                self.shard_map.move(request.shard, expected_epoch=1, to_node=request.destination, move_id=request.id)
        return () if self.others is None else (self.others,)

    def unsettled(self) -> tuple[MoveReport, ...]:
        if self.clock.now() >= NOW + self.settles:
            self.in_doubt.clear()
        return tuple(self.in_doubt)

    def run(self, requests: Sequence[MoveRequest]) -> tuple[MoveReport, ...]:
        """As engine.migration.several.Moves: what is in another move is refused by its node."""
        return tuple(self._move(request) for request in requests)

    def _move(self, request: MoveRequest) -> MoveReport:
        if any(one.progress.request.shard == request.shard for one in self.under_way()):
            return a_report(request, MovePhase.ABORTED, "in another move")
        self.tried.append((request.shard, request.destination))
        if request.destination in self.full:
            return a_report(request, MovePhase.ABORTED, "no room")
        self.moved.append(request)
        epoch = self.shard_map.get(request.shard).epoch
        self.shard_map.move(request.shard, expected_epoch=epoch, to_node=request.destination, move_id=request.id)
        return a_report(request)

    def release(self, shard: Shard) -> None:
        self.fleet.release(shard)
        self.released.append(shard.id)

    def add(self, name: str, node: NodeId) -> ShardId:
        return self.shard_map.add_shard(
            ShardId(name), shard_type="cpu.small", pool=PoolId("web"), node=node, nominal=SMALL,
            state=ShardState.READY,
        ).id  # fmt: skip
