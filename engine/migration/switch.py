"""From the start of pre-copy until one side runs for good: look, decide (engine.migration.decisions), act, again."""

from agent.wire import (
    CommitRequest,
    DestinationStatus,
    Landing,
    MemoryDigest,
    MemoryRequest,
    MirrorRequest,
    MoveCommand,
    PatchRequest,
    SendRequest,
    SourceStatus,
    SwitchoverRequest,
    TuneRequest,
)
from engine.errors import ConcurrentUpdate, MoveFailed, NotFound, ShardwrightError, StaleEpoch, UnknownName
from engine.migration.base import MoveContext, MoveInDoubt, MovePlan, ShardOwnership, Transfer
from engine.migration.decisions import (
    POST_COPY,
    Act,
    Observation,
    Ownership,
    Sight,
    may_swap,
    next_act,
    out_of_patience,
    ownership,
)
from engine.migration.sides import Sides
from engine.migration.strategies import Advice, Sample, Verb, advise
from engine.model.move import MovePhase, MoveRequest
from engine.model.placement import BEYOND_ALL

_FIRST_DOWNTIME_LIMIT_MS = 100
_LOOK_SECONDS = 0.1
_SWITCHOVER_WAIT_SECONDS = 0.5
_MOST_REPAIRS = 3
_STRATEGY_AFTER = {Verb.STOP_GUEST: "stop-and-copy", Verb.POST_COPY: "post-copy"}
_CHUNKS_A_PATCH = 64


class Switch(Sides):
    """One run of that loop, and what it has measured. Without a landing nothing is copied: the move is only settled."""

    def __init__(self, context: MoveContext, plan: MovePlan | MoveInDoubt, landing: Landing | None) -> None:
        super().__init__(context, plan.request)
        self._plan, self._landing = plan, landing
        self._strategy, self._downtime_limit_ms = "pre-copy", _FIRST_DOWNTIME_LIMIT_MS
        self._samples: list[Sample] = []
        self._last: SourceStatus | None = None
        self._disk_bytes = 0
        self._problem = ""
        self._swap_tried = False
        self._copying_since: float | None = None
        self._committed_since: float | None = None
        self._heard = self._now()
        self._last_act: Act | None = None
        self._stopped_at: float | None = None
        """Where the guest stands still sooner than QEMU counts it as downtime."""
        self._sent_at: float | None = None
        self._ran_at: float | None = None
        self._throttled = False
        self._post_copy_refused = False
        self._left = 1 << 62

    def run(self) -> Transfer:
        """Blocks until the move is decided and one side runs, or it is in doubt; bounded by the context's limits."""
        while True:
            seen = None
            try:
                seen = self._look()
                act = next_act(seen)
                if act is not Act.LOOK_AGAIN:
                    outcome = self._do(act, seen)
                    if outcome is not None:
                        return outcome
                    if act is not self._last_act:
                        # The same act over and over is no progress, even where nobody objects to it.
                        self._last_act, self._heard = act, self._now()
                        continue
            except Exception as problem:
                # Node, QEMU or store: whatever it was, the next look tells what became of it. Only while nothing can
                # have been swapped may a refusal end the move at once.
                self._problem = str(problem) or type(problem).__name__
                hopeless = isinstance(problem, MoveFailed | StaleEpoch)
                if hopeless and not self._swap_tried and seen is not None and seen.owner is Ownership.SOURCE:
                    return self._ended(MovePhase.ROLLING_BACK, self._problem)
            if self._out_of_patience(seen):
                return self._give_up(seen)
            self._context.clock.sleep(_LOOK_SECONDS)

    def _give_up(self, seen: Observation | None) -> Transfer:
        try:
            # What was seen before a swap says nothing about what is so after it.
            seen = self._look() if self._swap_tried else seen
            last = Act.LOOK_AGAIN if seen is None else out_of_patience(seen)
            if last is Act.ROLL_BACK:
                return self._ended(MovePhase.ROLLING_BACK, self._problem or "a node does not answer")
            if last is Act.GIVE_BACK:
                stalled = self._problem if seen is not None and seen.source is not None else ""
                self._give_back()
                return self._ended(MovePhase.ROLLING_BACK, stalled or "the source died before its memory had arrived")
            if last is Act.COLD_RESTART and seen is not None:
                return self._cold_restart(seen)
        except Exception as problem:
            self._problem = str(problem) or type(problem).__name__
        return self._ended(MovePhase.IN_DOUBT, self._problem or "no side can be asked who runs")

    def _cold_restart(self, seen: Observation) -> Transfer:
        there = seen.destination
        in_post_copy = there is not None and (there.receiving or there.migration.startswith(POST_COPY))
        if seen.source_sight is Sight.NODE_GONE and not in_post_copy and self._may_run_there_still():
            return self._ended(MovePhase.IN_DOUBT, self._problem)
        self._context.storage.hand_over(self._shard)
        self._destination.restart(self._shard, self._command(1))
        self._strategy = "cold-restart"
        self._stopped_at, self._ran_at = self._stopped_at or self._committed_since, self._now()
        gone = "the source was gone" if seen.source is None else "the guest was gone"
        return self._ended(MovePhase.COMMITTED, f"{gone} before its memory had arrived")

    def _may_run_there_still(self) -> bool:
        """A node that is given up may only be cut off; with run leases it is waited for until its lease has ended."""
        free_at = self._context.free_at(self._shard, self._plan.started_at)
        self._problem = f"{self._request.source} may run the shard until {free_at:%H:%M:%S} UTC, when its lease ends"
        return self._context.clock.now() < free_at

    def _out_of_patience(self, seen: Observation | None) -> bool:
        limits, now = self._context.limits, self._now()
        if self._landing is None:  # once is enough, but for a QEMU that may only have stalled
            stalled = seen is not None and seen.destination is not None and seen.destination.silent
            return not stalled or now - self._heard > limits.unreachable
        committed = self._committed_since
        return now - self._heard > limits.unreachable or (
            committed is not None and now - committed > limits.after_commit()
        )

    def _overdue(self) -> bool:
        """No copying any more: past the bound, past the deadline, or only settled."""
        if not isinstance(self._plan, MovePlan) or self._landing is None:
            return True
        limits, deadline = self._context.limits, self._request.deadline
        until = self._plan.started_at.timestamp() + limits.before_commit(self._plan.disk_mib)
        if deadline is not None:
            until = max(until, deadline.timestamp() + limits.unreachable)
        return self._now() > until

    def _do(self, act: Act, seen: Observation) -> Transfer | None:
        """One act; a Transfer when the move has ended with it."""
        if act is Act.DONE:
            died = seen.destination is not None and not seen.destination.running
            self._last = seen.source or self._last
            return self._ended(MovePhase.COMMITTED, "the guest has died on its new node" if died else "")
        if act is Act.ROLL_BACK:
            return self._ended(MovePhase.ROLLING_BACK, _story(seen) or self._problem or "the migration failed")
        if act is Act.START_COPY:
            self._start_copy()
        if act in (Act.START_COPY, Act.AWAIT_SWITCHOVER):
            return self._await_switchover()
        if act is Act.SWAP and seen.source is not None:
            return self._swap_and_finish(seen.source)
        if act is Act.COLD_RESTART:
            return self._cold_restart(seen)
        if act is Act.GIVE_BACK:
            self._give_back()
            return self._ended(MovePhase.ROLLING_BACK, "the destination was lost; the shard is given back")
        self._forward(act, seen)
        return None

    def _forward(self, act: Act, seen: Observation) -> None:
        """After the commit point, towards one side that runs for good."""
        if act is Act.AWAIT_MEMORY:
            self._await_memory(seen)
        elif act is Act.RECONNECT:
            self._reconnect()
        elif act is Act.PROCEED:
            self._claim()
            self._proceed()
        elif act is Act.COMMIT and seen.destination is not None and seen.destination.receiving:
            self._commit(None)
        elif act is Act.COMMIT:
            # A source that still answers tells what the memory must be; from one that is gone it is taken as it came.
            self._commit(self._proceed() if seen.source else None)

    def _start_copy(self) -> None:
        if self._landing is None:
            raise MoveFailed(f"move {self._request.id} is only settled: nothing is copied")
        limits = self._context.limits
        request = SendRequest(
            move=self._request.id,
            epoch=self._plan.epoch,
            landing=self._landing,
            auto_converge=limits.auto_converge and self._under_kvm,
        )
        self._source.precopy(self._shard, request)
        self._enter(MovePhase.PRECOPY)

    def _await_switchover(self) -> Transfer | None:
        """Bounded waits for the pause, the ladder between them; no other look, since the guest may pause any time."""
        self._copying_since = self._copying_since or self._now()
        wanted = self._command(0)
        if self._rest_may_go():
            wanted = SwitchoverRequest(move=wanted.move, epoch=wanted.epoch, send_rest=True)
        while True:
            if self._overdue():
                return self._ended(MovePhase.ROLLING_BACK, "the move has had all its time")
            self._require_wanted()
            status = self._source.switchover(self._shard, wanted, _SWITCHOVER_WAIT_SECONDS)
            self._heard = self._now()
            self._last, self._disk_bytes = status, max(self._disk_bytes, status.disk_bytes_done)
            if may_swap(status):
                return self._swap_and_finish(status)
            if status.migration not in ("setup", "active") or not status.mirror_present:
                return None
            self._tell(
                MovePhase.PRECOPY,
                strategy=self._strategy,
                bytes_left=status.remaining_bytes,
                bytes_per_second=status.bytes_per_second,
            )
            self._samples.append(
                Sample(
                    at=self._now() - self._copying_since,
                    remaining_bytes=status.remaining_bytes,
                    bytes_per_second=status.bytes_per_second,
                )
            )
            advice = self._advice()
            if advice.verb is Verb.GIVE_UP:
                return self._ended(MovePhase.ROLLING_BACK, advice.reason)
            if advice.verb is Verb.GIVE_UP_MEMORY:
                return self._give_up_memory(advice)
            self._help(advice)

    def _rest_may_go(self) -> bool:
        """Before the store has decided: where that is not final, and where what has arrived was sent (GuestProfile)."""
        bare = isinstance(self._plan, MovePlan) and self._plan.profile.bare_stream
        return bare and self._landing is not None and not self._landing.post_copy

    def _advice(self) -> Advice:
        deadline = self._request.deadline
        return advise(
            self._samples,
            seconds_left=None if deadline is None else (deadline - self._context.clock.now()).total_seconds(),
            downtime_limit_ms=self._downtime_limit_ms,
            stopped=self._strategy == "stop-and-copy",
            throttle=self._context.limits.auto_converge and self._under_kvm and not self._throttled,
            post_copy=self._landing is not None and self._landing.post_copy and not self._post_copy_refused,
            limits=self._context.limits,
        )

    @property
    def _under_kvm(self) -> bool:
        return isinstance(self._plan, MovePlan) and self._plan.profile.accelerator == "kvm"

    @property
    def _attached(self) -> bool:
        """It has a disk that stays: its source may still need it until all is sent, and only then it is handed over."""
        return isinstance(self._plan, MovePlan) and self._plan.attached

    def _help(self, advice: Advice) -> None:
        if advice.verb is Verb.KEEP_ON or self._strategy != "pre-copy":
            return
        tune = TuneRequest(
            move=self._request.id,
            epoch=self._plan.epoch,
            downtime_limit_ms=advice.downtime_limit_ms,
            stop_guest=advice.verb is Verb.STOP_GUEST,
            throttle=advice.verb is Verb.THROTTLE,
            post_copy=advice.verb is Verb.POST_COPY,
        )
        try:
            self._source.tune(self._shard, tune)
        except MoveFailed:
            if not tune.post_copy:
                raise
            self._post_copy_refused = True  # its memory may have to be compared: the ladder goes on without
            return
        if tune.stop_guest:
            self._stopped_at = self._now()
        if advice.verb is not Verb.RAISE_DOWNTIME:
            self._samples.clear()  # another copy from here on, with a time of its own
            self._copying_since = self._now()
            self._throttled = True
            self._strategy = _STRATEGY_AFTER.get(advice.verb, self._strategy)
        self._downtime_limit_ms = advice.downtime_limit_ms or self._downtime_limit_ms

    def _give_up_memory(self, advice: Advice) -> Transfer:
        """Both disks are made equal, the store gives the shard away, and the destination boots from its own."""
        self._stopped_at = self._stopped_at or self._now()
        self._source.cease(self._shard, self._command(0))
        self._swap()
        self._context.storage.hand_over(self._shard)
        self._strategy = "cold-restart"
        self._destination.restart(self._shard, self._command(1))
        self._ran_at = self._now()
        return self._ended(MovePhase.COMMITTED, f"the memory was given up: {advice.reason}")

    def _swap(self) -> None:
        """The commit point. Raises MoveFailed where the destination is about to leave."""
        self._enter(MovePhase.SWITCHING)
        tried_before, self._swap_tried = self._swap_tried, True
        try:
            self._context.shards.move(
                self._shard,
                expected_epoch=self._plan.epoch,
                to_node=self._request.destination,
                move_id=self._request.id,
            )
        except ConcurrentUpdate as refused:
            self._swap_tried = tried_before  # the store's own word that nothing was swapped
            raise MoveFailed(refused.what, why=refused.why) from refused
        self._enter(MovePhase.COMMITTED)

    def _swap_and_finish(self, paused: SourceStatus) -> Transfer | None:
        """The guest is paused: from here every millisecond counts, so the straight path does not look again."""
        self._swap()
        if paused.exact and paused.migration != "pre-switchover" and not self._attached:
            # Memory is on its way or there, and need not be compared: nobody has to be asked before it runs.
            self._commit(None)
            self._proceed()
            return self._ended(MovePhase.COMMITTED)
        self._claim()
        memory = self._proceed()
        assert self._last is not None
        if self._last.migration.startswith(POST_COPY):
            self._commit(None)
            self._strategy = "post-copy"
            self._enter(MovePhase.POSTCOPY)
            return None
        if self._last.migration != "completed":
            return None
        self._commit(memory)
        return self._ended(MovePhase.COMMITTED)

    def _proceed(self) -> MemoryDigest | None:
        """The source is told that it has given the shard away; what its memory was, where that is to be compared."""
        proceeded = self._source.proceed(self._shard, self._command(1))
        self._last, self._sent_at = proceeded.status, self._now() - proceeded.seconds_since_sent
        return proceeded.memory

    def _claim(self) -> None:
        """Where post-copy is possible the guest may run before its mirror's export is closed by itself."""
        if self._landing is None or self._landing.post_copy:
            self._destination.claim(self._shard, self._command(1))

    def _await_memory(self, seen: Observation) -> None:
        """As long as it becomes less, there is no reason to doubt."""
        assert seen.source is not None
        self._strategy, left = "post-copy", seen.source.remaining_bytes
        if left < self._left:
            self._left = left
            self._heard = self._now()
            self._committed_since = self._now()
        rate = seen.source.bytes_per_second
        self._tell(MovePhase.POSTCOPY, strategy=self._strategy, bytes_left=left, bytes_per_second=rate)

    def _reconnect(self) -> None:
        """Bounded by the patience of the loop; the sweep goes on with it."""
        self._strategy = "post-copy"
        landing = self._destination.listen_again(self._shard, self._command(1))
        request = MirrorRequest(move=self._request.id, epoch=self._plan.epoch + 1, landing=landing)
        self._source.send_again(self._shard, request)

    def _commit(self, memory: MemoryDigest | None) -> None:
        """Run on the destination; memory that the migration has lost on its way is brought there first."""
        self._sent_at = self._sent_at or self._now()
        move, epoch = self._request.id, self._plan.epoch + 1
        if self._attached or not isinstance(self._plan, MovePlan):  # the store is not asked in vain: the guest waits
            self._context.storage.hand_over(self._shard)
        for _ in range(_MOST_REPAIRS):
            done = self._destination.commit(self._shard, CommitRequest(move=move, epoch=epoch, memory=memory))
            if not done.differing:
                self._ran_at = self._now() - done.seconds_since_running
                return
            for at in range(0, len(done.differing), _CHUNKS_A_PATCH):
                indexes = done.differing[at : at + _CHUNKS_A_PATCH]
                lost = self._source.memory(self._shard, MemoryRequest(move=move, epoch=epoch, indexes=indexes))
                self._destination.patch(self._shard, PatchRequest(move=move, epoch=epoch, patch=lost))
            memory = self._source.proceed(self._shard, self._command(1)).memory
        raise MoveFailed(f"the memory of shard {self._shard} stays different after {_MOST_REPAIRS} repairs")

    def _give_back(self) -> None:
        """The store decides again, and only after the destination's guest is proven dead without ever having run."""
        found = self._destination.abort(self._shard, self._command(1))
        if found.present or found.committed:
            raise MoveFailed(f"the destination's guest of shard {self._shard} is not gone", why="it was told to run")
        self._context.shards.move(
            self._shard,
            expected_epoch=self._plan.epoch + 1,
            to_node=self._request.source,
            move_id=self._request.id,
        )

    def _look(self) -> Observation:
        owner, _ = owner_now(self._context.shards, self._request, self._plan.epoch)
        if owner is Ownership.DESTINATION and self._committed_since is None:
            self._committed_since = self._now()
        source_sight, source = self._ask_source()
        destination_sight, destination = self._ask_destination()
        return Observation(
            owner=owner,
            overdue=self._overdue(),
            source_sight=source_sight,
            source=source,
            destination_sight=destination_sight,
            destination=destination,
        )

    def _ask_source(self) -> tuple[Sight, SourceStatus | None]:
        try:
            return Sight.ANSWERS, self._source.source_status(self._shard)
        except NotFound:
            return Sight.GUEST_GONE, None
        except UnknownName:
            return Sight.NODE_GONE, None
        except ShardwrightError as problem:
            self._problem = str(problem)
            return Sight.SILENT, None

    def _ask_destination(self) -> tuple[Sight, DestinationStatus | None]:
        try:
            status = self._destination.destination_status(self._shard)
        except UnknownName:
            return Sight.NODE_GONE, None
        except ShardwrightError as problem:
            self._problem = str(problem)
            return Sight.SILENT, None
        if status.silent:
            self._problem = f"QEMU of shard {self._shard} does not answer on {self._request.destination}"
            return Sight.SILENT, status
        return (Sight.ANSWERS if status.present else Sight.GUEST_GONE), status

    def _command(self, raised: int) -> MoveCommand:
        return MoveCommand(move=self._request.id, epoch=self._plan.epoch + raised)

    def _ended(self, phase: MovePhase, error: str = "") -> Transfer:
        last = self._last
        raised = 1 if phase is MovePhase.COMMITTED or self._swap_tried else 0
        return Transfer(
            phase=phase,
            strategy=self._strategy,
            epoch_after=self._plan.epoch + raised,
            downtime_seconds=self._downtime() if raised else 0.0,
            memory_bytes=last.transferred_bytes if last else 0,
            disk_bytes=self._disk_bytes,
            error=error,
        )

    def _downtime(self) -> float:
        """From the guest's standing still to its running again: by QEMU and us, or by the clock where we stopped it."""
        if self._stopped_at is not None and self._ran_at is not None:
            return max(0.0, self._ran_at - self._stopped_at)
        counted = self._last.downtime_ms / 1000 if self._last else 0.0  # until all was sent
        return counted + max(0.0, (self._ran_at or 0.0) - (self._sent_at or 0.0))

    def _now(self) -> float:
        return self._context.clock.now().timestamp()


def owner_now(shards: ShardOwnership, request: MoveRequest, epoch_before: int) -> tuple[Ownership, int]:
    """Who owns the shard, and the epoch to speak with: that of the map; for a shard it does not know, one above all.

    A shard that is made anew under that id begins beyond it (``ShardMap.add_shard``).
    """
    try:
        shard = shards.get(request.shard)
    except UnknownName:
        return ownership(request, epoch_before, None), epoch_before + BEYOND_ALL
    return ownership(request, epoch_before, (shard.node, shard.epoch)), shard.epoch


def _story(seen: Observation) -> str:
    """Why a move is rolled back; empty where the problem met before says it."""
    if seen.owner is Ownership.KEPT:
        return "the shard stays with its source"
    if seen.owner is Ownership.ELSEWHERE:
        return "another move has taken the shard"
    if seen.owner is Ownership.RELEASED:
        return "the shard has been released"
    if seen.source_sight is Sight.GUEST_GONE:
        return "the source's guest is gone"
    if seen.destination_sight is Sight.GUEST_GONE:
        return "the destination's guest is gone"
    if Sight.NODE_GONE in (seen.source_sight, seen.destination_sight):
        return "a node of the move is gone"
    if seen.source is not None and not (seen.source.mirror_present or seen.source.mirrored):
        return seen.source.error or "the disk's mirror broke off"
    return (seen.source.error if seen.source else "") or ("the move has had all its time" if seen.overdue else "")
