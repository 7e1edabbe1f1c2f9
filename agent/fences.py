"""What a node lets be done to a guest: rules over its record, with no clock, no file and no QEMU in them.

The agent obeys them, and the simulator of moves (tests/move_simulator) is made of the same ones. With each goes the
epoch: a command with a lower one than the node has stored is refused (``current``).
"""

from agent.guest import GuestRecord
from agent.wire import MoveCommand, Verdict
from engine.errors import ConcurrentUpdate, MoveFailed, StaleEpoch
from engine.model.ids import ShardId

UNHEARD_SECONDS = 15.0
"""A guest that a move has paused for so long without a word from the controller asks the store who owns it."""


def current(shard: ShardId, stored: int, epoch: int) -> None:
    """Raise StaleEpoch for a lower epoch than the stored one."""
    if epoch < stored:
        raise StaleEpoch(f"shard {shard} is at epoch {stored} here", why=f"the command carries epoch {epoch}")


def in_move(record: GuestRecord, command: MoveCommand) -> None:
    """Raise ConcurrentUpdate unless the guest takes part in that very move: what comes late does nothing."""
    if record.move != command.move:
        raise ConcurrentUpdate(f"shard {record.shard} is not in move {command.move}", why=f"in: {record.move}")


def may_join(record: GuestRecord, command: MoveCommand) -> None:
    """Raise ConcurrentUpdate when the guest takes part in another move, or does not run here."""
    if record.move not in (None, command.move):
        raise ConcurrentUpdate(f"shard {record.shard} is in another move", why=str(record.move))
    if not record.lives_here:
        raise ConcurrentUpdate(f"shard {record.shard} does not run here", why="it waits for a move or was given away")


def may_make_way(record: GuestRecord, command: MoveCommand) -> None:
    """Raise MoveFailed for a guest that waited for that very move and has died: its disk may be all that is left.

    It is cleared away, or booted, by the end of its move; a command that comes late does not begin anew.
    """
    if record.move == command.move and record.incoming and record.pid:
        raise MoveFailed(f"the guest that waited for shard {record.shard} has died", why="its disk may be complete")


def may_commit(record: GuestRecord, command: MoveCommand) -> None:
    """As ``in_move``, but one that has been committed already (its move is over) may be told again."""
    if record.move is not None or record.incoming:
        in_move(record, command)


def may_run(record: GuestRecord, move: str | None, epoch: int) -> bool:
    """Whether the store's word "it is yours at ``epoch``" may start a guest again that this move has stopped.

    False: another move has it by now. Raises StaleEpoch when it was given away at that epoch or a later one.
    """
    if record.incoming or record.move not in (None, move):
        return False
    if epoch <= record.ceded_epoch:
        raise StaleEpoch(f"shard {record.shard} was given away at epoch {record.ceded_epoch}")
    return True


def may_kill(record: GuestRecord, command: MoveCommand, *, given_away: bool = False) -> bool:
    """Whether what is here is a remainder of that move: it has never run here, or was given away.

    ``given_away``: the command brings the store's word for that, to a node that had not heard of it yet.
    """
    known = 0 < record.ceded_epoch <= command.epoch
    return record.move == command.move and (record.incoming or known or given_away)


def word_on(record: GuestRecord, migration: str) -> str:
    """QEMU's word about the migration, seen from the guest's move: it keeps the end of the last one until the next."""
    of_another = migration in ("completed", "failed", "cancelled") and record.sent_for != record.move
    return "none" if of_another else migration


def must_stop(record: GuestRecord, *, running: bool) -> bool:
    """A guest that was given away, or may be at any moment; QEMU starts it by itself when the rest cannot be sent."""
    return running and (record.ceded_epoch > 0 or record.handing_over)


def may_mirror(record: GuestRecord) -> bool:
    """Whether a mirror may begin: what comes late must not write over a disk that has been handed over."""
    return not record.handing_over


def still_mirrored(record: GuestRecord, mirrored: bool, *, running: bool, migration: str) -> bool:
    """Whether both disks are equal, by a mirror that was ended: a guest that has run on since has gone its own way."""
    ran_on = record.handing_over and migration in ("failed", "cancelled")
    return mirrored and not running and not ran_on


def must_finish(record: GuestRecord) -> bool:
    """A guest that was told to run here, by an agent that died over it. A commit is not taken back: nobody is asked."""
    return record.committing and (record.move is None or record.receiving) and not record.incoming


def must_ask(record: GuestRecord, *, running: bool, unheard_seconds: float) -> bool:
    """Whether a guest has been left paused by a move that nobody drives any more."""
    in_question = record.move is not None and not record.incoming and not record.receiving
    return in_question and not running and unheard_seconds >= UNHEARD_SECONDS


def may_run_on(record: GuestRecord, move: str | None, verdict: Verdict) -> bool:
    """After asking: only the store's yes counts, no answer is no yes, and the guest must still be in that move."""
    return record.move == move and verdict.yours and verdict.epoch > record.ceded_epoch
