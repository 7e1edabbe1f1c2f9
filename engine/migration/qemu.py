"""The steps of a live QEMU move between two agents. Each may be repeated after a crash: it looks before it acts."""

from datetime import datetime

from agent.wire import (
    AbortRequest,
    GuestState,
    Landing,
    MirrorRequest,
    MoveCommand,
    PrepareRequest,
    ReserveRequest,
    SourceStatus,
)
from engine.errors import ConcurrentUpdate, MoveFailed, NotFound, StaleEpoch, UnknownName
from engine.migration.base import MoveInDoubt, MovePlan, Transfer
from engine.migration.decisions import Ownership, Removal, leftovers
from engine.migration.sides import Sides
from engine.migration.switch import Switch, owner_now
from engine.model.move import MovePhase

_LOOK_SECONDS, _SHORTEST_LOOK_SECONDS = 0.1, 0.02


class QemuMove(Sides):
    """One move, driven from the outside step by step."""

    def begin(self) -> MovePlan:
        """Raises StaleEpoch when the shard is not on the source, MoveFailed for a move that makes no sense.

        Raises ConcurrentUpdate when the guest does not run, or is in another move, MoveCancelled.
        """
        self._require_wanted()
        request = self._request
        if request.source == request.destination:
            raise MoveFailed(f"shard {request.shard} is on node {request.destination} already")
        shard = self._context.shards.get(request.shard)
        if shard.node != request.source:
            raise StaleEpoch(f"shard {request.shard} is not on node {request.source}", why=f"it is on {shard.node}")
        status = self._source.shard(request.shard)
        if status.move not in (None, request.id) or status.state is not GuestState.RUNNING:
            # What another move has not settled yet may be the only copy: it is not to be built upon, nor cleared away.
            raise ConcurrentUpdate(
                f"shard {request.shard} cannot move now", why=f"it is {status.state}, in move {status.move}"
            )
        return MovePlan.of(request, shard, status, self._context.clock.now())

    def reserve(self, plan: MovePlan) -> None:
        self._require_wanted()
        ttl = self._context.limits.reserve_ttl
        request = ReserveRequest(move=self._request.id, epoch=plan.epoch, resources=plan.resources, ttl_seconds=ttl)
        self._destination.reserve(self._shard, request)
        self._enter(MovePhase.RESERVED)

    def prepare(self, plan: MovePlan) -> Landing:
        self._require_wanted()
        storage = self._context.storage
        attached = storage.admit(self._shard, self._request.destination) if plan.attached else None
        request = PrepareRequest(
            move=self._request.id, epoch=plan.epoch, source=self._request.source, resources=plan.resources,
            image=plan.image, address=plan.address, mac=plan.mac, disk_mib=plan.disk_mib, profile=plan.profile,
            attached=attached, post_copy=self._context.limits.post_copy,
        )  # fmt: skip
        landing = self._destination.prepare(self._shard, request)
        self._enter(MovePhase.PREPARED)
        return landing

    def mirror(self, plan: MovePlan, landing: Landing) -> None:
        """Until every block is on both sides and every write goes to both. Raises MoveFailed past the limit."""
        self._require_wanted()
        limits, clock = self._context.limits, self._context.clock
        allowed = limits.mirror(plan.disk_mib)
        began = clock.now()
        request = MirrorRequest(move=self._request.id, epoch=plan.epoch, landing=landing)
        status = self._source.mirror(self._shard, request)
        self._enter(MovePhase.MIRRORING)
        while not status.mirror_ready and status.migration != "pre-switchover":
            if not status.mirror_present:
                raise MoveFailed(f"the mirror of shard {self._shard}'s disk broke off")
            if (clock.now() - began).total_seconds() > allowed:
                raise MoveFailed(f"the disk of shard {self._shard} was not mirrored within {allowed:.0f} s")
            self._require_wanted()
            clock.sleep(next_look(status, (clock.now() - began).total_seconds()))
            status = self._source.source_status(self._shard)
            self._tell_mirror(status, (clock.now() - began).total_seconds())

    def _tell_mirror(self, status: SourceStatus, seconds: float) -> None:
        self._tell(
            MovePhase.MIRRORING,
            strategy="pre-copy",
            bytes_left=max(0, status.disk_bytes_total - status.disk_bytes_done),
            bytes_per_second=status.disk_bytes_done / max(seconds, _LOOK_SECONDS),
        )

    def transfer(self, plan: MovePlan, landing: Landing) -> Transfer:
        """Memory and ownership: from the start of pre-copy until one side runs for good."""
        return Switch(self._context, plan, landing).run()

    def end(self, epoch_before: int, transfer: Transfer) -> Transfer:
        """Decide a rollback in the store, then remove what the move left behind; nothing is raised.

        CLEANED or ABORTED once nothing is left, else the phase it came with and the reason: again later.
        """
        problems: list[str] = []
        try:
            if transfer.phase is MovePhase.ROLLING_BACK:
                self._enter(MovePhase.ROLLING_BACK)
                self._keep(epoch_before)
            owner, epoch = owner_now(self._context.shards, self._request, epoch_before)
        except Exception as problem:
            return _told(transfer, f"the store does not answer: {problem}")
        if owner is Ownership.SOURCE or (owner, transfer.phase) == (Ownership.DESTINATION, MovePhase.ROLLING_BACK):
            return _told(transfer.model_copy(update={"phase": MovePhase.IN_DOUBT}), "the store says otherwise")
        command = MoveCommand(move=self._request.id, epoch=epoch)
        for removal in leftovers(owner):
            try:
                self._remove(removal, command)
            except (NotFound, UnknownName):
                continue
            except StaleEpoch as problem:
                if owner is not Ownership.RELEASED:  # there a later move has been, and clears up itself
                    problems.append(str(problem))
            except Exception as problem:
                problems.append(str(problem) or type(problem).__name__)
        if problems:
            return _told(transfer, "; ".join(problems))
        phase = MovePhase.CLEANED if transfer.phase is MovePhase.COMMITTED else MovePhase.ABORTED
        self._enter(phase)
        epoch_after = transfer.epoch_after if phase is MovePhase.CLEANED else epoch
        return transfer.model_copy(update={"phase": phase, "epoch_after": epoch_after})

    def settle(self, epoch_before: int, transfer: Transfer, started_at: datetime) -> Transfer:
        """One look at a move that did not come to its end, and what can be done about it now; nothing is raised."""
        if transfer.phase is MovePhase.IN_DOUBT:
            plan = MoveInDoubt(request=self._request, epoch=epoch_before, started_at=started_at)
            found = Switch(self._context, plan, None).run()
            if found.phase is MovePhase.IN_DOUBT:
                return _told(transfer, found.error)
            transfer = (
                found if found.strategy == "cold-restart" else found.model_copy(update={"strategy": transfer.strategy})
            )
        return self.end(epoch_before, transfer)

    def _keep(self, epoch_before: int) -> None:
        """The other end of a move: the shard stays on the source, and nothing of the old epoch is obeyed any more."""
        try:
            self._context.shards.move(
                self._shard, expected_epoch=epoch_before, to_node=self._request.source, move_id=self._request.id
            )
        except (StaleEpoch, UnknownName):
            return  # decided already: by the source's keeper, by a give-back, or by whoever moved or released it

    def _remove(self, removal: Removal, command: MoveCommand) -> None:
        if removal is Removal.RESUME_SOURCE:
            self._source.resume(self._shard, command)
        elif removal is Removal.ABORT_SOURCE:
            given_away = AbortRequest(move=command.move, epoch=command.epoch, given_away=True)
            self._source.abort(self._shard, given_away)
        elif removal is Removal.ABORT_DESTINATION:
            self._destination.abort(self._shard, command)
        else:
            agent = self._source if removal is Removal.RELEASE_SOURCE else self._destination
            agent.release(self._shard, command.epoch)


def next_look(status: SourceStatus, seconds: float) -> float:
    """Seconds until the mirror is likely to be done at its pace in ``seconds``, a tenth at most.

    Memory waits for it: what is found late there makes the whole move longer.
    """
    if status.disk_bytes_done <= 0:
        return _LOOK_SECONDS
    left = (status.disk_bytes_total - status.disk_bytes_done) * seconds / status.disk_bytes_done
    return min(_LOOK_SECONDS, max(_SHORTEST_LOOK_SECONDS, left))


def _told(transfer: Transfer, problem: str) -> Transfer:
    """With the reason why it has not ended, once."""
    if problem in transfer.error:
        return transfer
    return transfer.model_copy(update={"error": "; ".join(part for part in (transfer.error, problem) if part)})
