"""What a move must do next, from what can be seen now. Pure, and the same after a crash as without one.

The store alone says who may run. Before its commit point the source goes on whatever happens; after it only the
destination may run, until the store has given the shard back, which it does only once the destination is proven dead.
"""

from enum import StrEnum

from agent.wire import DestinationStatus, SourceStatus
from engine.model.value import Value


class Ownership(StrEnum):
    """What the shard map says, seen from one move."""

    SOURCE = "source"
    DESTINATION = "destination"
    GIVEN_BACK = "given_back"
    """The move committed and was undone: the source again, two epochs on."""
    ELSEWHERE = "elsewhere"
    """Someone else has moved the shard."""


class Sight(StrEnum):
    ANSWERS = "answers"
    SILENT = "silent"
    GUEST_GONE = "guest_gone"
    """Its agent answers: the guest's process is dead or was never there."""


class Observation(Value):
    """One look at store, source and destination. ``source`` is set while its guest lives, ``destination`` always but
    when its agent is silent."""

    owner: Ownership
    source_sight: Sight
    source: SourceStatus | None = None
    destination_sight: Sight
    destination: DestinationStatus | None = None


class Act(StrEnum):
    START_COPY = "start_copy"
    AWAIT_SWITCHOVER = "await_switchover"
    SWAP = "swap"
    """The commit point: compare-and-swap in the store."""
    PROCEED = "proceed"
    COMMIT = "commit"
    DONE = "done"
    ROLL_BACK = "roll_back"
    GIVE_BACK = "give_back"
    RESUME = "resume"
    LOOK_AGAIN = "look_again"


def next_act(seen: Observation) -> Act:
    """The one safe act. LOOK_AGAIN until the caller's patience ends; then ``out_of_patience`` says what follows."""
    if seen.owner is Ownership.SOURCE:
        return _before_commit(seen)
    if seen.owner is Ownership.DESTINATION:
        return _after_commit(seen)
    if seen.owner is Ownership.GIVEN_BACK:
        return Act.RESUME if seen.source_sight is not Sight.SILENT else Act.LOOK_AGAIN
    return Act.ROLL_BACK


def _before_commit(seen: Observation) -> Act:
    if Sight.GUEST_GONE in (seen.source_sight, seen.destination_sight):
        return Act.ROLL_BACK
    if seen.source is None or seen.destination is None:
        return Act.LOOK_AGAIN
    if seen.source.migration in ("failed", "cancelled"):
        return Act.ROLL_BACK
    if seen.source.migration in ("none", "completed"):
        # "completed" is of an earlier move that was given back: QEMU keeps the last one's word.
        return Act.START_COPY if seen.source.mirror_ready else Act.ROLL_BACK
    if seen.source.migration == "pre-switchover" and not seen.source.mirror_present:
        return Act.SWAP
    return Act.AWAIT_SWITCHOVER


def _after_commit(seen: Observation) -> Act:
    if seen.destination is None:
        return Act.LOOK_AGAIN
    if seen.destination.committed:
        # Told to run: if its guest has died since, its disk is still the newest there is.
        runs_or_died = seen.destination.running or not seen.destination.present
        return Act.DONE if runs_or_died else Act.COMMIT
    arrived = seen.destination.arrived
    if seen.source is None:
        # A source that has sent everything has stopped its guest first; one that is silent cannot be asked.
        return Act.COMMIT if arrived else Act.LOOK_AGAIN
    if seen.destination_sight is Sight.GUEST_GONE:
        return Act.GIVE_BACK
    if seen.source.migration in ("pre-switchover", "device", "active"):
        return Act.PROCEED
    if seen.source.migration == "completed":
        return Act.COMMIT if arrived else Act.LOOK_AGAIN
    return Act.GIVE_BACK


def out_of_patience(seen: Observation) -> Act:
    """After looking for as long as the limits allow: before the commit point give up, after it stay in doubt."""
    return Act.ROLL_BACK if seen.owner is Ownership.SOURCE else Act.LOOK_AGAIN
