"""Where the shards of a node go when it has to be left. Pure: values in, move requests out."""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType

from engine.evacuation.admission import admits
from engine.model.capacity import Placement, Resources
from engine.model.ids import MoveId, NodeId, PoolId, ShardId, provider_of
from engine.model.move import MovePhase, MoveReport, MoveRequest, MoveUnderWay
from engine.model.placement import Node, NodeState, Shard, ShardState
from engine.model.plan import MoveCause
from engine.model.value import Value


class Evacuation(Value):
    """What to do, in order: spare shards to give up first, then the moves; ``stranded`` found no place."""

    displaced: tuple[ShardId, ...]
    """Ready shards nobody is bound to, released to make room."""
    moves: tuple[MoveRequest, ...]
    stranded: tuple[ShardId, ...]
    reasons: tuple[tuple[ShardId, str], ...] = ()
    """For each of both: why it goes where it goes, or why nowhere."""


class SeenMoves(Value):
    """What is known of moves besides those that are being chosen."""

    promised: tuple[MoveRequest, ...] = ()
    """Their shards take room where they go, though the map still has them where they were."""
    moving: frozenset[ShardId] = frozenset()
    """Shards of the node that are left to the moves that they are in."""
    failed: tuple[MoveRequest, ...] = ()
    """Earlier attempts of the same evacuation, each time that one failed."""

    @classmethod
    def of(
        cls,
        leaving: NodeId,
        under_way: Iterable[MoveUnderWay],
        unsettled: Iterable[MoveReport],
        failed: Sequence[MoveRequest] = (),
    ) -> "SeenMoves":
        """One that has not begun and has time takes no room from an evacuation; one in doubt may end either way."""
        open_ends = [report.request for report in unsettled if report.phase is MovePhase.IN_DOUBT]
        begun = [one.progress.request for one in under_way if one.progress.phase is not MovePhase.REQUESTED]
        pressed = [one.progress.request for one in under_way if one.progress.request.deadline is not None]
        moving = frozenset(one.shard for one in (*begun, *open_ends) if one.source == leaving)
        promised = {one.id: one for one in (*begun, *open_ends, *pressed)}
        return cls(
            promised=tuple(one for one in promised.values() if one.source != leaving or one.shard in moving),
            moving=moving,
            failed=tuple(failed),
        )


_NOTHING_SEEN = SeenMoves()
_LENT = "its disk is in use from elsewhere, and does not move"


def plan_evacuation(
    leaving: NodeId,
    nodes: Sequence[Node],
    shards: Sequence[Shard],
    placements: Mapping[PoolId, Placement],
    *,
    cause: MoveCause,
    deadline: datetime | None,
    attempt: str,
    only: ShardId | None = None,
    to: str | None = None,
    fixed: Collection[ShardId] = (),
    ranks: Mapping[PoolId, int] = MappingProxyType({}),
    seen: SeenMoves = _NOTHING_SEEN,
) -> Evacuation:
    """Send each bound shard of ``leaving`` to the node that fails least together with it.

    A destination must be joined, allowed by the pool and have room, where a ready shard of the same type counts as room
    (it is given up). Preferred: where no earlier attempt has failed, then another provider, then another region, then
    free room without giving up a spare, then a node from which everything would get out again in time, then the
    cheapest one. ``attempt`` makes the move ids; the same attempt gives the same ids.

    In this order places are given and moves begin: by ``ranks``, those of the pools' risk classes (0 is served first, a
    pool without one last), and within a rank the smallest memory first. All share one link, so that most are out when
    the notice turns out to be too short.

    ``only``: that shard alone, which may be ready too. ``to``: only nodes of that provider, or the node of that name.
    ``fixed``: shards that cannot move, since others use their disk from elsewhere. ``seen``: moves that go on, and
    those of earlier attempts; a destination where one failed comes last and not never, since there may be no other.
    """
    source = next(node for node in nodes if node.id == leaving)
    room = _Room([node for node in nodes if to in (None, node.id, provider_of(node.cell))], shards, leaving, seen)
    displaced: list[ShardId] = []
    moves: list[MoveRequest] = []
    stranded: list[ShardId] = []
    reasons: list[tuple[ShardId, str]] = []
    bound = (shard for shard in _bound(shards, leaving) if shard.id not in seen.moving)
    leaves = bound if only is None else [shard for shard in shards if shard.id == only]
    for shard in sorted(leaves, key=lambda one: (ranks.get(one.pool, math.inf), one.nominal.memory_gib, one.id)):
        placement = placements.get(shard.pool, Placement())
        found = None if shard.id in fixed else room.best_for(shard, source, placement)
        if found is None:
            stranded.append(shard.id)
            reasons.append((shard.id, _LENT if shard.id in fixed else room.refusals(shard, placement)))
            continue
        node, spare = found
        if spare is not None:
            displaced.append(spare.id)
        room.take(node, shard, spare)
        reasons.append((shard.id, _why(node, source, spare)))
        moves.append(
            MoveRequest(
                id=MoveId(f"move-{shard.id}-{attempt}"),
                shard=shard.id,
                source=leaving,
                destination=node.id,
                cause=cause,
                deadline=deadline,
            )
        )
    return Evacuation(displaced=tuple(displaced), moves=tuple(moves), stranded=tuple(stranded), reasons=tuple(reasons))


def _why(node: Node, source: Node, spare: Shard | None) -> str:
    """In the order in which it counts."""
    mine, its = provider_of(source.cell), provider_of(node.cell)
    apart = "the same cell" if node.cell == source.cell else f"another region of {its}"
    return ", ".join(
        (
            f"another provider ({its})" if its != mine else apart,
            "free room" if spare is None else f"the spare {spare.id} gives way",
            f"{node.hourly_price} per hour for the node",
        )
    )


def _bound(shards: Iterable[Shard], node: NodeId) -> list[Shard]:
    return [shard for shard in shards if shard.node == node and shard.state is ShardState.BOUND]


def _coming(shards: Sequence[Shard], promised: Sequence[MoveRequest]) -> list[Shard]:
    """As they will be where they go, in use; not those that the map has there already."""
    known = {shard.id: shard for shard in shards if shard.state is not ShardState.RELEASED}
    return [
        known[one.shard].model_copy(update={"node": one.destination, "state": ShardState.BOUND})
        for one in promised
        if one.shard in known and known[one.shard].node != one.destination
    ]


class _Room:
    """What is free where, while destinations are being handed out."""

    def __init__(self, nodes: Sequence[Node], shards: Sequence[Shard], leaving: NodeId, seen: SeenMoves) -> None:
        self._nodes = [node for node in nodes if node.id != leaving and node.state is not NodeState.GONE]
        self._shards = [shard for shard in shards if shard.node != leaving] + _coming(shards, seen.promised)
        self._failed = Counter((one.shard, one.destination) for one in seen.failed)

    def best_for(self, shard: Shard, source: Node, placement: Placement) -> tuple[Node, Shard | None] | None:
        candidates = []
        for node in self._nodes:
            provider = provider_of(node.cell)
            if self._refusal(node, shard, placement):
                continue
            spare = None if self._has_room(node, shard) else self._spare(node, shard)
            rank = (
                self._failed[shard.id, node.id],
                provider == provider_of(source.cell),
                node.cell == source.cell,
                spare is not None,
                not admits(node, self._beside(node, spare), shard.nominal),
                node.hourly_price.amount,
                node.id,
            )
            candidates.append((rank, node, spare))
        if not candidates:
            return None
        _, node, spare = min(candidates, key=lambda candidate: candidate[0])
        return node, spare

    def refusals(self, shard: Shard, placement: Placement) -> str:
        """Why none of the nodes will do."""
        told = (f"{node.id}: {self._refusal(node, shard, placement)}" for node in self._nodes)
        return "; ".join(told) or "there is no other node"

    def _refusal(self, node: Node, shard: Shard, placement: Placement) -> str:
        """Empty for a node that may take the shard."""
        provider, _, region = node.cell.split("/", 2)
        if node.state is not NodeState.JOINED:
            return f"it is {node.state}"
        if not placement.allows(provider, region):
            return f"pool {shard.pool} may not be there"
        if not self._has_room(node, shard) and self._spare(node, shard) is None:
            return "no room, and no spare of that type to give up"
        return ""

    def _has_room(self, node: Node, shard: Shard) -> bool:
        return not node.resources.short_of(shard.nominal, self._beside(node, None))

    def _spare(self, node: Node, wanted: Shard) -> Shard | None:
        spares = (
            shard
            for shard in self._shards
            if shard.node == node.id
            and shard.state is ShardState.READY
            and shard.shard_type == wanted.shard_type
            and self._makes_room(node, shard, wanted)
        )
        return min(spares, key=lambda shard: shard.id, default=None)

    def _makes_room(self, node: Node, spare: Shard, wanted: Shard) -> bool:
        """One that was resized may need more than the place of one of its type."""
        if all(getattr(spare.nominal, name) >= getattr(wanted.nominal, name) for name in Resources.model_fields):
            return True
        return not node.resources.short_of(wanted.nominal, self._beside(node, spare))

    def _beside(self, node: Node, spare: Shard | None) -> list[Resources]:
        """What is carved from the node and stays when the spare gives way."""
        return [
            shard.nominal
            for shard in self._shards
            if shard.node == node.id and shard != spare and shard.state is not ShardState.RELEASED
        ]

    def take(self, node: Node, shard: Shard, spare: Shard | None) -> None:
        if spare is not None:
            self._shards.remove(spare)
        self._shards.append(shard.model_copy(update={"node": node.id}))
