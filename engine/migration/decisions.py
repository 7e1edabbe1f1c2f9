"""A move as a state machine: which states there are, what leads from one to the next, what to do in each. Pure.

The store alone says who may run, and a move ends there: by the swap that gives the shard to the destination (the commit
point), or by the one that keeps it on the source. Both raise the epoch from the same value, so exactly one of them
happens, whoever asks for it and however late. Before the end the source goes on whatever happens; after a commit only
the destination may run, until the store has given the shard back, which it does only once the destination is proven
dead. Everything here is decided from what can be seen now, so it is the same after a crash as without one.
"""

from collections.abc import Mapping
from enum import StrEnum

from agent.wire import DestinationStatus, SourceStatus
from engine.model.ids import NodeId
from engine.model.move import MovePhase, MoveRequest
from engine.model.value import Value

POST_COPY = "postcopy"
"""How QEMU's words for a migration in post-copy begin."""

# --- states -----------------------------------------------------------------------------------------------------------


class Step(StrEnum):
    """What the durable workflow records one by one."""

    RESERVE = "reserve"
    PREPARE = "prepare"
    MIRROR = "mirror"
    TRANSFER = "transfer"
    """Pre-copy and switchover: a record between them would be downtime. Decided look by look: ``next_act``."""
    END = "end"
    """Remove what is left on the side that lost: ``leftovers``."""


_STEP_IN: Mapping[MovePhase, Step] = {
    MovePhase.REQUESTED: Step.RESERVE,
    MovePhase.RESERVED: Step.PREPARE,
    MovePhase.PREPARED: Step.MIRROR,
    MovePhase.MIRRORING: Step.TRANSFER,
    MovePhase.ROLLING_BACK: Step.END,
    MovePhase.COMMITTED: Step.END,
}
LEADS_TO: Mapping[MovePhase, tuple[MovePhase, ...]] = {
    MovePhase.REQUESTED: (MovePhase.RESERVED, MovePhase.ROLLING_BACK),
    MovePhase.RESERVED: (MovePhase.PREPARED, MovePhase.ROLLING_BACK),
    MovePhase.PREPARED: (MovePhase.MIRRORING, MovePhase.ROLLING_BACK),
    MovePhase.MIRRORING: (MovePhase.PRECOPY, MovePhase.ROLLING_BACK, MovePhase.IN_DOUBT),
    MovePhase.PRECOPY: (MovePhase.SWITCHING, MovePhase.ROLLING_BACK, MovePhase.IN_DOUBT),
    MovePhase.SWITCHING: (MovePhase.COMMITTED, MovePhase.ROLLING_BACK, MovePhase.IN_DOUBT),
    MovePhase.COMMITTED: (MovePhase.CLEANED, MovePhase.POSTCOPY, MovePhase.ROLLING_BACK, MovePhase.IN_DOUBT),
    MovePhase.POSTCOPY: (MovePhase.CLEANED, MovePhase.IN_DOUBT),
    MovePhase.ROLLING_BACK: (MovePhase.ABORTED,),
    MovePhase.IN_DOUBT: (MovePhase.COMMITTED, MovePhase.ROLLING_BACK),
}
"""Back from COMMITTED only by GIVE_BACK, from POSTCOPY not at all. docs/design/0009 has this table as a picture."""
FINAL = (MovePhase.CLEANED, MovePhase.ABORTED)


def next_step(phase: MovePhase, tried: frozenset[Step]) -> Step | None:
    """What the workflow does next, None: the rest is the sweep's. ``tried``: no step is done twice by one workflow."""
    step = _STEP_IN.get(phase)
    return None if step in tried else step


# --- what can be seen -------------------------------------------------------------------------------------------------


class Ownership(StrEnum):
    """What the shard map says, seen from one move."""

    SOURCE = "source"
    """At the epoch at which the move began: nothing is decided yet."""
    KEPT = "kept"
    """The source's at a later epoch: the move was given up, or given back."""
    DESTINATION = "destination"
    ELSEWHERE = "elsewhere"
    """Later moves have taken the shard on."""
    RELEASED = "released"
    """The map does not know it any more: it was given up, perhaps with the node that owned it."""


def ownership(request: MoveRequest, epoch_before: int, owner: tuple[NodeId, int] | None) -> Ownership:
    """``owner``: node and epoch in the shard map, None for a shard that it does not know any more."""
    if owner is None:
        return Ownership.RELEASED
    if owner == (request.source, epoch_before):
        return Ownership.SOURCE
    if owner == (request.destination, epoch_before + 1):
        return Ownership.DESTINATION
    if owner[0] == request.source and owner[1] > epoch_before:
        return Ownership.KEPT
    return Ownership.ELSEWHERE


class Sight(StrEnum):
    ANSWERS = "answers"
    SILENT = "silent"
    """Its agent does not answer, or the guest's QEMU does not and lives."""
    GUEST_GONE = "guest_gone"
    """Its agent answers: the guest's process is dead or was never there."""
    NODE_GONE = "node_gone"
    """The store says that the node is gone, and everything on it."""


class Observation(Value):
    """One look at store, source and destination. ``source`` is set while its guest lives and answers, ``destination``
    always but when its agent is silent; where only QEMU is, it says what is written down."""

    owner: Ownership
    overdue: bool = False
    """The move has had all the time it may take before its commit point."""
    source_sight: Sight
    source: SourceStatus | None = None
    destination_sight: Sight
    destination: DestinationStatus | None = None


# --- decisions --------------------------------------------------------------------------------------------------------


class Act(StrEnum):
    START_COPY = "start_copy"
    AWAIT_SWITCHOVER = "await_switchover"
    SWAP = "swap"
    """The commit point: compare-and-swap in the store."""
    PROCEED = "proceed"
    COMMIT = "commit"
    AWAIT_MEMORY = "await_memory"
    """Post-copy: the destination runs, and the rest follows."""
    RECONNECT = "reconnect"
    """Post-copy: the connection broke, and both sides live."""
    DONE = "done"
    ROLL_BACK = "roll_back"
    GIVE_BACK = "give_back"
    COLD_RESTART = "cold_restart"
    """Boot from the disk that was mirrored to its end; the memory is lost."""
    LOOK_AGAIN = "look_again"


def next_act(seen: Observation) -> Act:
    """The one safe act. LOOK_AGAIN until the caller's patience ends; then ``out_of_patience`` says what follows."""
    if seen.owner is Ownership.SOURCE:
        return Act.ROLL_BACK if seen.overdue else _before_commit(seen)
    if seen.owner is Ownership.DESTINATION:
        return _after_commit(seen)
    return Act.ROLL_BACK


def _before_commit(seen: Observation) -> Act:
    if {Sight.GUEST_GONE, Sight.NODE_GONE} & {seen.source_sight, seen.destination_sight}:
        return Act.ROLL_BACK
    if seen.source is None or seen.destination_sight is Sight.SILENT:
        return Act.LOOK_AGAIN
    if may_swap(seen.source):
        return Act.SWAP
    if seen.source.migration in ("failed", "cancelled", "completed"):
        return Act.ROLL_BACK
    if seen.source.migration == "none":
        return Act.START_COPY if seen.source.mirror_ready else Act.ROLL_BACK
    return Act.AWAIT_SWITCHOVER if seen.source.mirror_present else Act.ROLL_BACK


def may_swap(source: SourceStatus) -> bool:
    """Whether the guest stands still with both disks equal, and its memory waits to be sent, goes, or is there."""
    return source.mirrored and source.migration in ("pre-switchover", "device", "completed")


def _after_commit(seen: Observation) -> Act:
    if seen.destination is None:
        return Act.LOOK_AGAIN
    if seen.destination.booting:
        return Act.COLD_RESTART  # its agent died over it, or it failed: it may be repeated
    if seen.destination.silent:
        return Act.LOOK_AGAIN  # it may run, and have all its memory: it is not ended for a stall
    if seen.destination.receiving and not seen.destination.arrived:
        return _while_receiving(seen, seen.destination)
    if seen.destination.committed:
        # Told to run: if its guest has died since, its disk is still the newest there is.
        runs_or_died = (seen.destination.running and not seen.destination.receiving) or not seen.destination.present
        return Act.DONE if runs_or_died else Act.COMMIT
    arrived = seen.destination.arrived
    if seen.source is None:
        # A source that has sent everything has stopped its guest first; one that is silent cannot be asked.
        return Act.COMMIT if arrived else Act.LOOK_AGAIN
    if seen.source.migration.startswith(POST_COPY):
        # The source's guest never runs again, and the destination's has not run yet: their disks are equal.
        return Act.COLD_RESTART if seen.destination_sight is Sight.GUEST_GONE else _landed(seen.destination)
    if seen.destination_sight is Sight.GUEST_GONE:
        return Act.GIVE_BACK
    if seen.source.migration in ("pre-switchover", "device", "active"):
        return Act.PROCEED
    if seen.source.migration == "completed":
        return Act.COMMIT if arrived else Act.LOOK_AGAIN
    return Act.GIVE_BACK


def _landed(destination: DestinationStatus) -> Act:
    if destination.landed:
        return Act.COMMIT
    return Act.RECONNECT if destination.migration == f"{POST_COPY}-paused" else Act.LOOK_AGAIN


def _while_receiving(seen: Observation, destination: DestinationStatus) -> Act:
    """The guest runs on the destination, or has died there, with part of its memory still on the source."""
    if seen.source_sight is Sight.SILENT:
        return Act.LOOK_AGAIN
    if _is_lost(seen.source) or not destination.present:
        # What it touches next never comes: it stands still for good. It has run here, so its disk is the newest.
        return Act.COLD_RESTART
    if not destination.running:
        return Act.COMMIT
    assert seen.source is not None
    broken = f"{POST_COPY}-paused" in (seen.source.migration, destination.migration)
    return Act.RECONNECT if broken else Act.AWAIT_MEMORY


def _is_lost(source: SourceStatus | None) -> bool:
    """The memory that a guest in post-copy still lacks; ``source``: None for one that is gone."""
    return source is None or not source.migration.startswith((POST_COPY, "completed"))


def _silent_too_long(seen: Observation, destination: DestinationStatus) -> Act:
    """QEMU lives on the destination and does not answer.

    In post-copy it may be stuck at a page that never comes, and then no command reaches it any more. Where pages can
    still come it is waited for, and the move is in doubt. Before that the source has all there is, or is dead itself.
    """
    if seen.source_sight is Sight.SILENT or (destination.committed and not destination.receiving):
        return Act.LOOK_AGAIN
    if destination.receiving or (seen.source is not None and seen.source.migration.startswith(POST_COPY)):
        cut_off = seen.source is not None and seen.source.migration == f"{POST_COPY}-paused"
        return Act.COLD_RESTART if cut_off or _is_lost(seen.source) else Act.LOOK_AGAIN
    return Act.COLD_RESTART if seen.source_sight is Sight.NODE_GONE else Act.GIVE_BACK


def out_of_patience(seen: Observation) -> Act:
    """After looking for as long as the limits allow: before the commit point give up, after it stay in doubt.

    But where the source's guest is dead and the memory has not arrived, it never will. The shard goes back to the disk
    that nothing is missing from: QEMU may have let the source's guest run on for a moment, and it has run nowhere else.
    Where that disk is gone with its node, the mirrored one has every write up to the switchover.
    """
    if seen.owner is Ownership.SOURCE:
        return Act.ROLL_BACK
    if seen.owner is Ownership.DESTINATION and seen.destination is not None and seen.destination.silent:
        return _silent_too_long(seen, seen.destination)
    waits = seen.destination is not None and not (seen.destination.committed or seen.destination.arrived)
    if seen.owner is not Ownership.DESTINATION or not waits:
        return Act.LOOK_AGAIN
    if seen.destination is not None and seen.destination.migration.startswith(POST_COPY):
        return Act.COLD_RESTART if seen.source_sight in (Sight.GUEST_GONE, Sight.NODE_GONE) else Act.LOOK_AGAIN
    return {Sight.GUEST_GONE: Act.GIVE_BACK, Sight.NODE_GONE: Act.COLD_RESTART}.get(seen.source_sight, Act.LOOK_AGAIN)


class Removal(StrEnum):
    """What a move that has ended still owes to its two nodes."""

    RESUME_SOURCE = "resume_source"
    ABORT_SOURCE = "abort_source"
    """The copy that was given away, if it is still there."""
    ABORT_DESTINATION = "abort_destination"
    RELEASE_SOURCE = "release_source"
    RELEASE_DESTINATION = "release_destination"
    """Whatever is there of a shard that is nobody's."""


def leftovers(owner: Ownership) -> tuple[Removal, ...]:
    """In order, read from the store at the moment of the act. Empty: nothing is decided, so nothing may be removed."""
    if owner is Ownership.KEPT:
        return (Removal.RESUME_SOURCE, Removal.ABORT_DESTINATION)
    if owner is Ownership.DESTINATION:
        return (Removal.ABORT_SOURCE,)
    if owner is Ownership.ELSEWHERE:
        return (Removal.ABORT_SOURCE, Removal.ABORT_DESTINATION)
    if owner is Ownership.RELEASED:
        return (Removal.RELEASE_SOURCE, Removal.RELEASE_DESTINATION)
    return ()
