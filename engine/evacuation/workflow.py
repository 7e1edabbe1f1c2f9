"""Leaving a node that its provider takes back, as a durable workflow: choose, make room, move, give up the rest."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from dbos import DBOS, SetWorkflowID, WorkflowHandle

from engine.clock import Clock, wait_until
from engine.composition.leaving import Drains
from engine.composition.storage import Storage
from engine.errors import ProviderUnavailable, ShardwrightError, UnknownName
from engine.evacuation.choice import Evacuation, plan_evacuation
from engine.events import Event, Observe
from engine.fleet.nodes import Fleet
from engine.migration.several import Moves
from engine.model.capacity import Placement
from engine.model.ids import NodeId, PoolId, ShardId
from engine.model.market import ReclaimNotice
from engine.model.move import MovePhase, MoveReport, MoveUnderWay
from engine.model.placement import NodeState, ShardState
from engine.model.plan import MoveCause
from engine.store.shard_map import ShardMap


@dataclass(frozen=True)
class EvacuationContext:
    shard_map: ShardMap
    fleet: Fleet
    moves: Moves
    placements: Mapping[PoolId, Placement]
    observe: Observe
    give_back: Callable[[NodeId], None]
    """Ends what was bought for a node that has left; idempotent."""
    drains: Drains
    storage: Storage
    clock: Clock
    under_way: Callable[[], tuple[MoveUnderWay, ...]]
    """Every move that has not ended, whoever asked for it."""


_DEADLINE_RESERVE = timedelta(seconds=5)
"""Kept of the notice for giving back what was drained."""
_LOOK_SECONDS = 0.2
_FIRST, _SECOND = "reclaim", "reclaim-2"
_contexts: list[EvacuationContext] = []


def configure(context: EvacuationContext) -> None:
    """Set what evacuations of this process work with; before DBOS is launched."""
    _contexts[:] = [context]


def evacuation_id(node: NodeId) -> str:
    return f"evacuate-{node}"


def evacuation_begun(node: NodeId) -> bool:
    return DBOS.get_workflow_status(evacuation_id(node)) is not None


def start_evacuation(notice: ReclaimNotice) -> WorkflowHandle[tuple[MoveReport, ...]]:
    """Begin, or find the evacuation of that node: a node is left once."""
    with SetWorkflowID(evacuation_id(notice.node)):
        return DBOS.start_workflow(evacuate, notice.node, notice.at)


@DBOS.workflow(name="evacuate")
def evacuate(node: NodeId, deadline: datetime) -> tuple[MoveReport, ...]:
    """Moves every bound shard off the node before the deadline; what finds no place leaves its name at once, and is
    given up once its drain time or the deadline has come.

    A shard that somebody else is moving already is left to that move. What is still there when all moves have ended
    is tried once more while there is time. Returns the last report of each shard.
    """
    context = _context()
    reports: dict[ShardId, MoveReport] = {}
    for attempt in (_FIRST, _SECOND):
        choice = DBOS.run_step({"name": "choose"}, _choose, node, deadline, attempt)
        DBOS.run_step({"name": "make_room"}, _make_room, choice)
        DBOS.run_step({"name": "drain"}, _drain, choice, deadline)
        reports |= {report.request.shard: report for report in context.moves.run(choice.moves)}
        DBOS.run_step({"name": "wait_for_others"}, _wait_for_others, node, deadline)
    DBOS.run_step({"name": "leave"}, _leave, node, deadline)
    DBOS.run_step({"name": "give_back", "retries_allowed": True, "max_attempts": 5}, context.give_back, node)
    return tuple(reports.values())


def _choose(node: NodeId, deadline: datetime, attempt: str) -> Evacuation:
    context = _context()
    if attempt == _SECOND and context.clock.now() >= deadline - _DEADLINE_RESERVE:
        return Evacuation(displaced=(), moves=(), stranded=())
    choice = plan_evacuation(
        node,
        context.shard_map.nodes(),
        context.shard_map.search(),
        context.placements,
        cause=MoveCause.RECLAIM,
        deadline=deadline,
        attempt=attempt,
        fixed=context.storage.in_use(),
    )
    if attempt == _FIRST or choice.moves or choice.stranded:
        context.observe(
            Event(
                step="evacuation",
                text=f"{node} is taken back at {deadline:%H:%M:%S} UTC: {len(choice.moves)} shards move"
                f"{' after all' if attempt == _SECOND else ''}, "
                f"{len(choice.displaced)} spares give way, {len(choice.stranded)} find no place",
            )
        )
    return choice


def _wait_for_others(node: NodeId, deadline: datetime) -> None:
    """Until no move leaves the node any more: a drain or a round may have been moving a shard off it already."""
    context = _context()
    left = deadline - _DEADLINE_RESERVE - context.clock.now()

    def over() -> bool:
        return all(one.progress.request.source != node for one in context.under_way())

    wait_until(over, context.clock, timeout_seconds=left.total_seconds(), every_seconds=_LOOK_SECONDS)


def _make_room(choice: Evacuation) -> None:
    context = _context()
    make_room(context.shard_map, context.fleet, choice.displaced)


def make_room(shard_map: ShardMap, fleet: Fleet, displaced: Iterable[ShardId]) -> None:
    """Give up those that are still spare: one that a component was bound to meanwhile stays, drained or not.

    Where a node does not answer, a round gives its spare up later; only a move that needs that room now fails.
    """
    for shard_id in displaced:
        with suppress(UnknownName, ProviderUnavailable):
            shard = shard_map.get(shard_id)
            if shard.state not in (ShardState.BOUND, ShardState.DRAINING):
                fleet.release(shard)


def _drain(choice: Evacuation, deadline: datetime) -> None:
    context = _context()
    names = [
        binding.component for shard_id in choice.stranded for binding in context.shard_map.bindings(shard=shard_id)
    ]
    context.drains.begin(names, by=deadline - _DEADLINE_RESERVE)


def _leave(node: NodeId, deadline: datetime) -> None:
    """Whatever is still on the node goes with it; the next round replaces it."""
    context = _context()
    context.drains.wait_for([node], by=deadline - _DEADLINE_RESERVE)
    context.shard_map.update_node(node, state=NodeState.GONE)
    for shard in context.shard_map.search(node=node):
        with suppress(UnknownName):  # a drained one, given up just now
            context.fleet.release(shard)


def succeeded(reports: tuple[MoveReport, ...]) -> bool:
    return all(report.phase is MovePhase.CLEANED for report in reports)


def _context() -> EvacuationContext:
    if not _contexts:
        raise ShardwrightError("evacuations are not configured in this process")
    return _contexts[0]
