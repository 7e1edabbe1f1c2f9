"""The steps of a live QEMU move between two agents. Each may be repeated after a crash: it looks before it acts."""

import time

from agent.wire import (
    CommitRequest,
    DestinationStatus,
    Landing,
    MemoryDigest,
    MemoryRequest,
    MirrorRequest,
    MoveCommand,
    PatchRequest,
    PrepareRequest,
    ReserveRequest,
    SourceStatus,
    TuneRequest,
)
from engine.errors import MoveFailed, NotFound, ShardwrightError, StaleEpoch
from engine.fleet.agent_client import AgentClient
from engine.migration.base import MoveContext, MovePlan, Transfer
from engine.migration.decisions import Act, Observation, Ownership, Sight, next_act, out_of_patience
from engine.migration.strategies import Advice, Sample, Verb, advise
from engine.model.move import MovePhase, MoveRequest

_FIRST_DOWNTIME_LIMIT_MS = 100
_LOOK_SECONDS = 0.1
_SWITCHOVER_WAIT_SECONDS = 0.5
_MOST_REPAIRS = 3
_CHUNKS_A_PATCH = 64


class QemuMove:
    """One move, driven from the outside step by step."""

    def __init__(self, context: MoveContext, request: MoveRequest) -> None:
        self._context, self._request = context, request
        self._shard = request.shard

    @property
    def _source(self) -> AgentClient:
        return self._context.agents(self._request.source)

    @property
    def _destination(self) -> AgentClient:
        return self._context.agents(self._request.destination)

    def begin(self) -> MovePlan:
        """Raises StaleEpoch when the shard is not on the source, MoveFailed for a move that makes no sense."""
        request = self._request
        if request.source == request.destination:
            raise MoveFailed(f"shard {request.shard} is on node {request.destination} already")
        shard = self._context.shards.get(request.shard)
        if shard.node != request.source:
            raise StaleEpoch(f"shard {request.shard} is not on node {request.source}", why=f"it is on {shard.node}")
        status = self._source.shard(request.shard)
        return MovePlan.of(request, shard, status, self._context.clock.now())

    def reserve(self, plan: MovePlan) -> None:
        ttl = self._context.limits.reserve_ttl
        request = ReserveRequest(move=self._request.id, epoch=plan.epoch, resources=plan.resources, ttl_seconds=ttl)
        self._destination.reserve(self._shard, request)
        self._enter(MovePhase.RESERVED)

    def prepare(self, plan: MovePlan) -> Landing:
        request = PrepareRequest(
            move=self._request.id, epoch=plan.epoch, source=self._request.source, resources=plan.resources,
            image=plan.image, address=plan.address, mac=plan.mac, disk_mib=plan.disk_mib, profile=plan.profile,
        )  # fmt: skip
        landing = self._destination.prepare(self._shard, request)
        self._enter(MovePhase.PREPARED)
        return landing

    def mirror(self, plan: MovePlan, landing: Landing) -> None:
        """Until every block is on both sides and every write goes to both. Raises MoveFailed past the limit."""
        limits, clock = self._context.limits, self._context.clock
        allowed = limits.mirror_at_least + 2 * plan.disk_mib / limits.mirror_floor_mib_per_second
        began = clock.now()
        request = MirrorRequest(move=self._request.id, epoch=plan.epoch, landing=landing)
        status = self._source.mirror(self._shard, request)
        self._enter(MovePhase.MIRRORING)
        while not status.mirror_ready and status.migration != "pre-switchover":
            if not status.mirror_present:
                raise MoveFailed(f"the mirror of shard {self._shard}'s disk broke off")
            if (clock.now() - began).total_seconds() > allowed:
                raise MoveFailed(f"the disk of shard {self._shard} was not mirrored within {allowed:.0f} s")
            clock.sleep(_LOOK_SECONDS)
            status = self._source.source_status(self._shard)

    def transfer(self, plan: MovePlan, landing: Landing) -> Transfer:
        """Memory and ownership: from the start of pre-copy until one side runs for good."""
        return _Switch(self._context, plan, landing, self._source, self._destination).run()

    def clean(self, plan: MovePlan, transfer: Transfer) -> None:
        """Remove what the move left on the side that lost."""
        if transfer.phase is MovePhase.COMMITTED:
            self._source.release(self._shard, transfer.epoch_after)
            self._enter(MovePhase.CLEANED)

    def roll_back(self, plan: MovePlan) -> None:
        """Before the commit point: the destination's guest is killed, the source's goes on."""
        self._enter(MovePhase.ROLLING_BACK)
        command = MoveCommand(move=self._request.id, epoch=plan.epoch)
        problems = []
        for act in (
            lambda: self._source.cancel(self._shard, command),
            lambda: self._destination.abort(self._shard, command),
        ):
            try:
                act()
            except NotFound:
                continue
            except ShardwrightError as problem:
                problems.append(str(problem))
        self._enter(MovePhase.ABORTED)
        if problems:
            raise MoveFailed(f"move {self._request.id} could not be taken back everywhere", why="; ".join(problems))

    def _enter(self, phase: MovePhase) -> None:
        self._context.observer(self._request.id, phase)


class _Switch:
    """The loop look -> decide -> act of ``transfer``; holds what one run of it has measured."""

    def __init__(
        self, context: MoveContext, plan: MovePlan, landing: Landing, source: AgentClient, destination: AgentClient
    ) -> None:
        self._context, self._plan, self._landing = context, plan, landing
        self._source, self._destination = source, destination
        self._request, self._shard = plan.request, plan.request.shard
        self._strategy, self._downtime_limit_ms = "pre-copy", _FIRST_DOWNTIME_LIMIT_MS
        self._samples: list[Sample] = []
        self._last: SourceStatus | None = None
        self._disk_bytes = 0
        self._seconds_to_run = 0.0
        self._problem = ""
        self._swap_tried = False

    def run(self) -> Transfer:
        limits, patience_began = self._context.limits, self._now()
        while True:
            seen = None
            try:
                seen = self._look()
                act = next_act(seen)
                if act is not Act.LOOK_AGAIN:
                    outcome = self._do(act, seen)
                    if outcome is not None:
                        return outcome
                    patience_began = self._now()
                    continue
            except Exception as problem:
                # Node, QEMU or store: whatever it was, the next look tells what became of it. Only while nothing can
                # have been swapped may a refusal end the move at once.
                self._problem = str(problem) or type(problem).__name__
                hopeless = isinstance(problem, MoveFailed | StaleEpoch)
                if hopeless and not self._swap_tried and seen is not None and seen.owner is Ownership.SOURCE:
                    return self._ended(MovePhase.ROLLING_BACK, self._problem)
            if self._now() - patience_began > limits.unreachable:
                if seen is not None and out_of_patience(seen) is Act.ROLL_BACK:
                    return self._ended(MovePhase.ROLLING_BACK, self._problem or "a node does not answer")
                return self._ended(MovePhase.IN_DOUBT, self._problem or "no side can be asked who runs")
            self._context.clock.sleep(_LOOK_SECONDS)

    def _do(self, act: Act, seen: Observation) -> Transfer | None:
        """One act; a Transfer when the move has ended with it."""
        if act is Act.DONE:
            died = seen.destination is not None and not seen.destination.running
            self._last = seen.source or self._last
            return self._ended(MovePhase.COMMITTED, "the guest has died on its new node" if died else "")
        if act is Act.ROLL_BACK:
            return self._ended(MovePhase.ROLLING_BACK, self._problem or _story(seen))
        if act is Act.START_COPY:
            self._start_copy()
        if act in (Act.START_COPY, Act.AWAIT_SWITCHOVER):
            return self._await_switchover()
        if act is Act.SWAP:
            return self._swap_and_finish()
        if act is Act.PROCEED:
            self._last = self._source.proceed(self._shard, self._command(1)).status
        elif act is Act.COMMIT:
            # A source that still answers tells what the memory must be; from one that is gone it is taken as it came.
            self._commit(self._source.proceed(self._shard, self._command(1)).memory if seen.source else None)
        elif act is Act.GIVE_BACK:
            self._give_back()
        elif act is Act.RESUME:
            self._source.resume(self._shard, self._command(2))
            return self._ended(MovePhase.ABORTED, self._problem or "the destination was lost; the source runs again")
        return None

    def _start_copy(self) -> None:
        request = MirrorRequest(move=self._request.id, epoch=self._plan.epoch, landing=self._landing)
        self._source.precopy(self._shard, request)
        self._enter(MovePhase.PRECOPY)

    def _await_switchover(self) -> Transfer | None:
        """Bounded waits for the pause, the ladder between them; no other look, since the guest may pause any time."""
        began = self._now()
        while True:
            status = self._source.switchover(self._shard, self._command(0), _SWITCHOVER_WAIT_SECONDS)
            self._last, self._disk_bytes = status, max(self._disk_bytes, status.disk_bytes_done)
            if status.migration == "pre-switchover" and not status.mirror_present:
                return self._swap_and_finish()
            if status.migration not in ("setup", "active"):
                return None
            self._samples.append(
                Sample(
                    at=self._now() - began,
                    remaining_bytes=status.remaining_bytes,
                    bytes_per_second=status.bytes_per_second,
                )
            )
            advice = self._advice()
            if advice.verb is Verb.GIVE_UP:
                return self._ended(MovePhase.ROLLING_BACK, advice.reason)
            self._help(advice)

    def _advice(self) -> Advice:
        deadline = self._request.deadline
        return advise(
            self._samples,
            seconds_left=None if deadline is None else (deadline - self._context.clock.now()).total_seconds(),
            downtime_limit_ms=self._downtime_limit_ms,
            limits=self._context.limits,
        )

    def _help(self, advice: Advice) -> None:
        if advice.verb is Verb.KEEP_ON or self._strategy == "stop-and-copy":
            return
        stop = advice.verb is Verb.STOP_GUEST
        self._strategy = "stop-and-copy" if stop else self._strategy
        self._downtime_limit_ms = advice.downtime_limit_ms or self._downtime_limit_ms
        tune = TuneRequest(
            move=self._request.id, epoch=self._plan.epoch, downtime_limit_ms=advice.downtime_limit_ms, stop_guest=stop
        )
        self._source.tune(self._shard, tune)

    def _swap_and_finish(self) -> Transfer | None:
        """The guest is paused: from here every millisecond counts, so the straight path does not look again."""
        self._enter(MovePhase.SWITCHING)
        self._swap_tried = True
        self._context.shards.move(
            self._shard,
            expected_epoch=self._plan.epoch,
            to_node=self._request.destination,
            move_id=self._request.id,
        )
        self._enter(MovePhase.COMMITTED)
        proceeded = self._source.proceed(self._shard, self._command(1))
        self._last = proceeded.status
        if self._last.migration != "completed":
            return None
        self._commit(proceeded.memory)
        return self._ended(MovePhase.COMMITTED)

    def _commit(self, memory: MemoryDigest | None) -> None:
        """Run on the destination; memory that the migration has lost on its way is brought there first."""
        sent = time.perf_counter()
        move, epoch = self._request.id, self._plan.epoch + 1
        for _ in range(_MOST_REPAIRS):
            done = self._destination.commit(self._shard, CommitRequest(move=move, epoch=epoch, memory=memory))
            if not done.differing:
                self._seconds_to_run = max(0.0, time.perf_counter() - sent - done.seconds_since_running)
                return
            for at in range(0, len(done.differing), _CHUNKS_A_PATCH):
                indexes = done.differing[at : at + _CHUNKS_A_PATCH]
                lost = self._source.memory(self._shard, MemoryRequest(move=move, epoch=epoch, indexes=indexes))
                self._destination.patch(self._shard, PatchRequest(move=move, epoch=epoch, patch=lost))
            memory = self._source.proceed(self._shard, self._command(1)).memory
        raise MoveFailed(f"the memory of shard {self._shard} stays different after {_MOST_REPAIRS} repairs")

    def _give_back(self) -> None:
        """The store decides again, and only after the destination's guest is proven dead."""
        self._destination.abort(self._shard, self._command(1))
        self._context.shards.move(
            self._shard,
            expected_epoch=self._plan.epoch + 1,
            to_node=self._request.source,
            move_id=self._request.id,
        )

    def _look(self) -> Observation:
        shard = self._context.shards.get(self._shard)
        source_sight, source = self._ask_source()
        destination_sight, destination = self._ask_destination()
        return Observation(
            owner=self._owner(shard.node, shard.epoch),
            source_sight=source_sight,
            source=source,
            destination_sight=destination_sight,
            destination=destination,
        )

    def _owner(self, node: str, epoch: int) -> Ownership:
        source, destination, before = self._request.source, self._request.destination, self._plan.epoch
        known = {
            (source, before): Ownership.SOURCE,
            (destination, before + 1): Ownership.DESTINATION,
            (source, before + 2): Ownership.GIVEN_BACK,
        }
        return next(
            (owner for (where, when), owner in known.items() if (where, when) == (node, epoch)), Ownership.ELSEWHERE
        )

    def _ask_source(self) -> tuple[Sight, SourceStatus | None]:
        try:
            return Sight.ANSWERS, self._source.source_status(self._shard)
        except NotFound:
            return Sight.GUEST_GONE, None
        except ShardwrightError as problem:
            self._problem = str(problem)
            return Sight.SILENT, None

    def _ask_destination(self) -> tuple[Sight, DestinationStatus | None]:
        try:
            status = self._destination.destination_status(self._shard)
        except ShardwrightError as problem:
            self._problem = str(problem)
            return Sight.SILENT, None
        return (Sight.ANSWERS if status.present else Sight.GUEST_GONE), status

    def _command(self, raised: int) -> MoveCommand:
        return MoveCommand(move=self._request.id, epoch=self._plan.epoch + raised)

    def _ended(self, phase: MovePhase, error: str = "") -> Transfer:
        last = self._last
        raised = {MovePhase.COMMITTED: 1, MovePhase.ABORTED: 2, MovePhase.IN_DOUBT: 1}.get(phase, 0)
        return Transfer(
            phase=phase,
            strategy=self._strategy,
            epoch_after=self._plan.epoch + raised,
            downtime_seconds=((last.downtime_ms / 1000 if last else 0.0) + self._seconds_to_run) if raised else 0.0,
            memory_bytes=last.transferred_bytes if last else 0,
            disk_bytes=self._disk_bytes,
            error=error,
        )

    def _enter(self, phase: MovePhase) -> None:
        self._context.observer(self._request.id, phase)

    def _now(self) -> float:
        return self._context.clock.now().timestamp()


def _story(seen: Observation) -> str:
    if seen.source_sight is Sight.GUEST_GONE:
        return "the source's guest is gone"
    if seen.destination_sight is Sight.GUEST_GONE:
        return "the destination's guest is gone"
    if seen.owner is Ownership.ELSEWHERE:
        return "another move has taken the shard"
    return (seen.source.error if seen.source else "") or "the migration failed"
