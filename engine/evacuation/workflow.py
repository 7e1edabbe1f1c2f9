"""Leaving a node that its provider takes back, as a durable workflow: choose, make room, move, give up the rest."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from dbos import DBOS, SetWorkflowID, StepOptions, WorkflowHandle, WorkflowStatus

from engine import durable
from engine.clock import Clock, wait_until
from engine.composition.leaving import Drains
from engine.composition.storage import Storage
from engine.errors import ConcurrentUpdate, NotGivenUp, ProviderUnavailable, ShardwrightError, StaleEpoch, UnknownName
from engine.evacuation.choice import Evacuation, SeenMoves, plan_evacuation
from engine.events import Event, Observe
from engine.fleet.nodes import PARALLEL_NODES, Fleet
from engine.migration.several import Moves
from engine.model.capacity import Placement
from engine.model.ids import NodeId, PoolId, ShardId
from engine.model.market import ReclaimNotice
from engine.model.move import MovePhase, MoveReport, MoveRequest, MoveUnderWay
from engine.model.placement import NodeState, Shard, ShardState
from engine.model.plan import MoveCause
from engine.side_by_side import side_by_side
from engine.store.shard_map import ShardMap


@dataclass(frozen=True)
class EvacuationContext:
    shard_map: ShardMap
    fleet: Fleet
    moves: Moves
    placements: Mapping[PoolId, Placement]
    ranks: Mapping[PoolId, int]
    """Of the pools' risk classes."""
    observe: Observe
    give_back: Callable[[NodeId], None]
    """Ends what was bought for a node that has left; idempotent."""
    drains: Drains
    storage: Storage
    clock: Clock
    under_way: Callable[[], tuple[MoveUnderWay, ...]]
    """Every move that has not ended, whoever asked for it."""
    unsettled: Callable[[], tuple[MoveReport, ...]]
    """Of those that have, the ones that did not come to their end."""


_DEADLINE_RESERVE = timedelta(seconds=5)
"""Kept of the notice for giving back what was drained."""
_LOOK_SECONDS = 0.2
_NOBODYS = (ShardState.HELD, ShardState.READY, ShardState.RELEASED)
_FIRST = 1
_PAUSES = (1.0, 2.0, 4.0, 8.0)
"""Seconds, after attempts at nothing but what has failed before; a place may come free at any moment of the notice."""
_WELL = "SUCCESS"
NAME = "evacuate"
_PREFIX, _AGAIN = f"{NAME}-", "-again-"
_contexts: list[EvacuationContext] = []


def configure(context: EvacuationContext) -> None:
    """Set what evacuations of this process work with; before DBOS is launched."""
    _contexts[:] = [context]


def evacuation_id(node: NodeId) -> str:
    """Of its last one. A node is left once; where that broke off, it is begun anew under a further id."""
    return _id(node, max(1, len(_runs(node))))


def evacuation_begun(node: NodeId) -> bool:
    """Also one that broke off, which no further notice needs to begin anew (engine.evacuation.again)."""
    return bool(_runs(node))


def start_evacuation(notice: ReclaimNotice) -> WorkflowHandle[tuple[MoveReport, ...]]:
    """Begin, or find the last evacuation of that node."""
    return _start(evacuation_id(notice.node), notice.node, notice.at)


@dataclass(frozen=True)
class BrokenOff:
    deadline: datetime
    why: str


def broken_off() -> Mapping[NodeId, BrokenOff]:
    """Nodes whose last evacuation ended in an error or was left behind by an older version."""
    numbers: dict[NodeId, int] = {}  # the highest of each: a node's others, all broken off too, are not read one by one
    for one in DBOS.list_workflows(name=NAME, status=list(durable.MAY_HAVE_BROKEN_OFF), load_output=False):
        if durable.broke_off(one) and one.input is not None:
            node = NodeId(one.input["args"][0])
            numbers[node] = max(numbers.get(node, 1), _number(node, one.workflow_id))
    found = {}
    for node, number in numbers.items():
        last = DBOS.get_workflow_status(_id(node, number))
        later = DBOS.get_workflow_status(_id(node, number + 1))
        if later is None and last is not None and last.input is not None:
            found[node] = BrokenOff(deadline=last.input["args"][1], why=_why(last))
    return found


def _why(broken: WorkflowStatus) -> str:
    if broken.error is not None:
        return durable.why(broken.error)
    ended = broken.status not in durable.UNFINISHED
    return "too many processes died over it" if ended else "an older version had begun it"


def start_again(node: NodeId, deadline: datetime) -> WorkflowHandle[tuple[MoveReport, ...]]:
    """Under the next id, for what is still on the node; what has ended its moves are not made again."""
    return _start(_id(node, len(_runs(node)) + 1), node, deadline)


def _start(workflow_id: str, node: NodeId, deadline: datetime) -> WorkflowHandle[tuple[MoveReport, ...]]:
    with SetWorkflowID(workflow_id):
        return DBOS.start_workflow(evacuate, node, deadline)


def _id(node: NodeId, number: int) -> str:
    """A number alone could end the name of another node."""
    return _PREFIX + node + (f"{_AGAIN}{number}" if number > 1 else "")


def _number(node: NodeId, workflow_id: str) -> int:
    return int(workflow_id.removeprefix(_id(node, 1)).removeprefix(_AGAIN) or 1)


def _runs(node: NodeId) -> list[WorkflowStatus]:
    """Its evacuations in the order in which they were begun; all but the last broke off."""
    found: list[WorkflowStatus] = []
    while (status := DBOS.get_workflow_status(_id(node, len(found) + 1))) is not None:
        found.append(status)
    return found


def forget_evacuations(gone: Callable[[NodeId], bool], *, before: datetime, most: int) -> int:
    """Delete the evacuations of nodes that are ``gone`` and whose last one ended earlier, and well; of how many nodes.

    All of a node's in one transaction: each is found by the one before it. One that has not ended well is begun anew,
    and of a node that is still there its provider may tell once more.
    """
    ended = (one for one in durable.ended(NAME, before=before, most=most) if one.status == _WELL)
    nodes = {NodeId(one.input["args"][0]) for one in ended if one.input is not None}
    forgotten = 0
    for node in sorted(node for node in nodes if gone(node)):
        runs = _runs(node)
        if runs and runs[-1].status == _WELL:
            DBOS.delete_workflows([run.workflow_id for run in runs])
            forgotten += 1
    return forgotten


@DBOS.workflow(name=NAME)
def evacuate(node: NodeId, deadline: datetime) -> tuple[MoveReport, ...]:
    """Moves every bound shard off the node before the deadline; what finds no place leaves its name at once, and is
    given up once its drain time or the deadline has come.

    A shard that somebody else is moving already is left to that move. What is still there when all moves have ended
    is tried again while there is time, where it has not failed yet first. Returns the last report of each shard.
    """
    context = _context()
    reports: dict[ShardId, MoveReport] = {}
    failed: list[MoveRequest] = []
    attempt, stale = _FIRST, 0
    while True:
        choice = DBOS.run_step(_tried("choose"), _choose, node, deadline, attempt, tuple(failed))
        DBOS.run_step(_tried("make_room"), _make_room, choice)
        DBOS.run_step(_tried("drain"), _drain, choice, deadline)
        ended = {report.request.shard: report for report in context.moves.run(choice.moves)}
        stale = 0 if _anything_new(choice.moves, failed) else stale + 1
        failed += [report.request for report in ended.values() if report.phase is not MovePhase.CLEANED]
        reports |= ended
        if not DBOS.run_step(_tried("wait_for_others"), _wait_for_others, node, deadline, stale):
            break
        attempt += 1
    DBOS.run_step(_tried("leave"), _leave, node, deadline)
    DBOS.run_step({"name": "give_back", "retries_allowed": True, "max_attempts": 5}, context.give_back, node)
    return tuple(reports.values())


def _anything_new(moves: Iterable[MoveRequest], failed: Iterable[MoveRequest]) -> bool:
    before = {(one.shard, one.destination) for one in failed}
    return any((one.shard, one.destination) not in before for one in moves)


def _tried(name: str) -> StepOptions:
    """Every step may be repeated, and a store that is busy for a moment ends none. No longer than a notice allows: what
    lasts ends the evacuation, which is begun anew.
    """
    return {"name": name, "retries_allowed": True, "max_attempts": 3, "interval_seconds": 0.5}


def _choose(node: NodeId, deadline: datetime, attempt: int, failed: tuple[MoveRequest, ...]) -> Evacuation:
    context = _context()
    reserve = timedelta(0) if attempt == _FIRST else _DEADLINE_RESERVE
    if context.clock.now() >= deadline - reserve:  # at first only where it is begun anew: nothing gets out any more
        return Evacuation(displaced=(), moves=(), stranded=())
    choice = plan_evacuation(
        node,
        context.shard_map.nodes(),
        context.shard_map.search(),
        context.placements,
        cause=MoveCause.RECLAIM,
        deadline=deadline,
        attempt=f"{_attempt_name(attempt)}-{_left_by()}",  # a shard may be evacuated more than once in its life
        fixed=context.storage.in_use(),
        ranks=context.ranks,
        seen=_seen(node, failed),
    )
    if attempt == _FIRST or choice.moves or choice.stranded:
        context.observe(
            Event(
                step="evacuation",
                text=f"{node} is taken back at {deadline:%H:%M:%S} UTC: {len(choice.moves)} shards move"
                f"{'' if attempt == _FIRST else ' after all'}, "
                f"{len(choice.displaced)} spares give way, {len(choice.stranded)} find no place",
            )
        )
    return choice


def _attempt_name(attempt: int) -> str:
    return "reclaim" if attempt == _FIRST else f"reclaim-{attempt}"


def _seen(node: NodeId, failed: tuple[MoveRequest, ...] = ()) -> SeenMoves:
    context = _context()
    under_way = context.under_way()  # first: a move that ends in between is seen twice, and not never
    return SeenMoves.of(node, under_way, context.unsettled(), failed)


def _left_by() -> str:
    """The node, and which evacuation of it, where that is not the first."""
    workflow = DBOS.workflow_id
    assert workflow is not None
    return workflow.removeprefix(_PREFIX)


def _wait_for_others(node: NodeId, deadline: datetime, stale: int) -> bool:
    """Until no move leaves the node any more (a drain or a round may have been moving a shard off it already), or until
    something is there that no move has: whether so, and there is time for it.

    A move in doubt is waited for too: its guest may run on here, and a node that is gone has nobody's word any more.
    ``stale``: how many attempts have tried nothing new by now.
    """
    context = _context()
    end = deadline - _DEADLINE_RESERVE

    def left() -> float:
        return (end - context.clock.now()).total_seconds()

    def waits() -> bool:
        bound = context.shard_map.search(node=node, state=ShardState.BOUND)
        return bool({shard.id for shard in bound} - _seen(node).moving)

    def over() -> bool:
        under_way = any(one.progress.request.source == node for one in context.under_way())
        return not under_way and not _seen(node).moving

    wait_until(lambda: waits() or over(), context.clock, timeout_seconds=left(), every_seconds=_LOOK_SECONDS)
    if stale and waits():
        context.clock.sleep(max(0.0, min(_PAUSES[min(stale, len(_PAUSES)) - 1], left())))
    return waits() and left() > 0


def _make_room(choice: Evacuation) -> None:
    context = _context()
    make_room(context.shard_map, context.fleet, choice.displaced)


def make_room(shard_map: ShardMap, fleet: Fleet, displaced: Iterable[ShardId]) -> None:
    """Give up those that are still spare: one that a component was bound to meanwhile stays, drained or not. A round
    may bind it at this very moment, so it is marked by a compare-and-swap: either is told that it is too late.

    Nodes side by side, since all moves wait for the slowest. One that does not answer is asked once, and keeps its
    other spares: only a move that needs that room now fails. What it was asked for a round gives up later.
    """
    by_node: dict[NodeId, list[Shard]] = {}
    for shard_id in displaced:
        with suppress(UnknownName):
            shard = shard_map.get(shard_id)
            by_node.setdefault(shard.node, []).append(shard)

    def on_one_node(spares: Sequence[Shard]) -> None:
        for spare in spares:
            try:
                fleet.release(
                    shard_map.set_state(spare.id, ShardState.RELEASED, expected_epoch=spare.epoch, only_from=_NOBODYS)
                )
            except (UnknownName, StaleEpoch, ConcurrentUpdate, NotGivenUp):
                continue
            except ProviderUnavailable:
                return

    side_by_side(on_one_node, list(by_node.values()), at_once=PARALLEL_NODES)


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
    while here := context.shard_map.search(node=node):
        for shard in here:
            # A drained one, given up just now; or another epoch: one that has got out in time is not here any more.
            with suppress(UnknownName, StaleEpoch):
                context.fleet.release(shard)


def succeeded(reports: tuple[MoveReport, ...]) -> bool:
    return all(report.phase is MovePhase.CLEANED for report in reports)


def _context() -> EvacuationContext:
    if not _contexts:
        raise ShardwrightError("evacuations are not configured in this process")
    return _contexts[0]
