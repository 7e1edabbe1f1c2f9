"""A world of two agents, a shard map and a network in one process, for moves with faults in any place.

The agents obey what the real ones obey (epochs, one landing a move, QEMU running on when its migration breaks)
and the world checks the two laws at every step: never two guests that run, never a guest that runs without every write
that was acknowledged before.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from agent.wire import (
    CommitRequest,
    Committed,
    DestinationStatus,
    GuestProfile,
    GuestState,
    Landing,
    MemoryDigest,
    MemoryPatch,
    MemoryRequest,
    MirrorRequest,
    MoveCommand,
    NetworkMode,
    PatchRequest,
    PrepareRequest,
    Proceeded,
    ReserveRequest,
    ShardStatus,
    SourceStatus,
    TuneRequest,
)
from engine.clock import ManualClock
from engine.errors import MoveFailed, NotFound, ProviderUnavailable, StaleEpoch
from engine.model.capacity import Resources
from engine.model.ids import MoveId, NodeId, PoolId, ShardId
from engine.model.move import MovePhase, MoveRequest
from engine.model.placement import Shard, ShardState
from engine.model.plan import MoveCause

SOURCE, DESTINATION, SHARD = NodeId("nA"), NodeId("nB"), ShardId("s1")
_RESOURCES = Resources(vcpus=1, memory_gib=0.125)
_PROFILE = GuestProfile(qemu_version="7.2", machine="pc", accelerator="tcg", cpu="max", image_digest="d")


class Fault(StrEnum):
    """What happens at one call of the controller."""

    REQUEST_LOST = "request_lost"
    ANSWER_LOST = "answer_lost"
    CRASH_BEFORE = "crash_before"
    CRASH_AFTER = "crash_after"
    KILL_SOURCE = "kill_source"
    KILL_DESTINATION = "kill_destination"


class ControllerDied(BaseException):
    """kill -9 of the control plane: nothing catches it."""


class LawBroken(AssertionError):
    pass


@dataclass
class Guest:
    """A copy of the shard: what its memory and disk hold is one number, the last write that it has seen."""

    alive: bool = True
    running: bool = False
    value: int = 0
    stored_epoch: int = 1
    mirror: bool = False
    migration: str = "none"
    ceded_epoch: int = 0
    incoming: bool = False
    arrived: bool = False
    committed: bool = False


@dataclass
class World:
    faults: dict[int, Fault] = field(default_factory=dict)
    rounds_to_converge: int = 1
    lost_writes: int = 0
    """How many of the last writes the migration of memory loses, as QEMU's does at times."""
    calls_until_arrival: int = 0
    """How many calls after the source has sent everything the destination needs to take it in."""
    clock: ManualClock = field(default_factory=lambda: ManualClock(datetime(2026, 1, 1, tzinfo=UTC)))
    acknowledged: int = 0
    calls: int = 0
    phases: list[MovePhase] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.source = Guest(running=True)
        self.destination: Guest | None = None
        self.destination_epoch = 0
        self.owner, self.epoch = SOURCE, 1
        self.moved_by: MoveId | None = None
        self.arrives_at: int | None = None

    def agents(self, node: NodeId) -> Any:
        return SourceAgent(self) if node == SOURCE else DestinationAgent(self)

    def call(self, act: Callable[[], Any]) -> Any:
        """One call over the network or to the store, with whatever fault is planned for it."""
        fault = self.faults.get(self.calls)
        self.calls += 1
        if self.calls > 5000:
            raise LawBroken("the move does not end")
        self.live()
        if fault is Fault.CRASH_BEFORE:
            raise ControllerDied
        if fault is Fault.REQUEST_LOST:
            raise ProviderUnavailable("lost")
        if fault is Fault.KILL_SOURCE:
            self.source.alive = self.source.running = False
        if fault is Fault.KILL_DESTINATION and self.destination is not None:
            self.destination.alive = self.destination.running = False
        answer = act()
        self.live()
        if fault is Fault.CRASH_AFTER:
            raise ControllerDied
        if fault is Fault.ANSWER_LOST:
            raise ProviderUnavailable("lost")
        return answer

    def live(self) -> None:
        """Time passes: memory arrives, whoever runs writes, and the laws hold."""
        if self.arrives_at is not None and self.calls >= self.arrives_at and self.destination is not None:
            self.destination.arrived = self.destination.alive
        copies = [self.source] + ([self.destination] if self.destination else [])
        running = [copy for copy in copies if copy.running]
        if len(running) > 1:
            raise LawBroken("two copies run")
        for copy in running:
            if copy.value != self.acknowledged:
                raise LawBroken(f"runs with {copy.value} of {self.acknowledged} writes")
            self.acknowledged += 1
            copy.value = self.acknowledged

    # -- the shard map

    def get(self, _shard: ShardId) -> Shard:
        return self.call(
            lambda: Shard(
                id=SHARD, shard_type="cpu.small", pool=PoolId("p"), node=self.owner, state=ShardState.BOUND,
                epoch=self.epoch, nominal=_RESOURCES, address="10.9.0.2", mac="52:54:00:09:00:02",
            )
        )  # fmt: skip

    def move(self, _shard: ShardId, *, expected_epoch: int, to_node: NodeId, move_id: MoveId | None = None) -> Shard:
        def swap() -> None:
            if self.epoch == expected_epoch:
                self.owner, self.epoch, self.moved_by = to_node, expected_epoch + 1, move_id
            elif (self.owner, self.epoch, self.moved_by) != (to_node, expected_epoch + 1, move_id):
                raise StaleEpoch("not yours")

        self.call(swap)
        return Shard(
            id=SHARD, shard_type="cpu.small", pool=PoolId("p"), node=self.owner, state=ShardState.BOUND,
            epoch=self.epoch, nominal=_RESOURCES, address="10.9.0.2", mac="52:54:00:09:00:02",
        )  # fmt: skip


class SourceAgent:
    def __init__(self, world: World) -> None:
        self._world, self._guest = world, world.source

    def shard(self, _shard: ShardId) -> ShardStatus:
        return self._world.call(
            lambda: ShardStatus(
                shard=SHARD, epoch=self._guest.stored_epoch, state=GuestState.RUNNING, resources=_RESOURCES,
                address="10.9.0.2/16", mac="52:54:00:09:00:02", disk_mib=64, image="records", profile=_PROFILE,
                network=NetworkMode.BRIDGE,
            )
        )  # fmt: skip

    def source_status(self, _shard: ShardId) -> SourceStatus:
        return self._world.call(self._status)

    def mirror(self, _shard: ShardId, request: MirrorRequest) -> SourceStatus:
        def act() -> SourceStatus:
            self._accept(request)
            self._guest.mirror = self._landing_alive()
            return self._status()

        return self._world.call(act)

    def precopy(self, _shard: ShardId, request: MirrorRequest) -> SourceStatus:
        def act() -> SourceStatus:
            self._accept(request)
            if not self._guest.mirror:
                raise MoveFailed("no mirror")
            self._guest.migration = "active"
            return self._status()

        return self._world.call(act)

    def tune(self, _shard: ShardId, request: TuneRequest) -> SourceStatus:
        def act() -> SourceStatus:
            self._accept(request)
            self._world.rounds_to_converge = 0
            return self._status()

        return self._world.call(act)

    def switchover(self, _shard: ShardId, command: MoveCommand, wait_seconds: float) -> SourceStatus:
        def act() -> SourceStatus:
            self._accept(command)
            self._world.clock.sleep(wait_seconds)
            guest, world = self._guest, self._world
            if guest.migration == "active" and not self._landing_alive():
                guest.migration, guest.running, guest.mirror = "failed", True, False
            elif guest.migration == "active" and world.rounds_to_converge <= 0:
                guest.migration, guest.running, guest.mirror = "pre-switchover", False, False
            elif guest.migration == "active":
                world.rounds_to_converge -= 1
            return self._status()

        return self._world.call(act)

    def proceed(self, _shard: ShardId, command: MoveCommand) -> Proceeded:
        def act() -> Proceeded:
            self._accept(command)
            guest, landing = self._guest, self._world.destination
            guest.ceded_epoch = guest.ceded_epoch or command.epoch
            if guest.migration == "pre-switchover":
                if landing is not None and landing.alive:
                    guest.migration = "completed"
                    landing.value = guest.value - self._world.lost_writes
                    self._world.arrives_at = self._world.calls + self._world.calls_until_arrival
                else:
                    guest.migration, guest.running = "failed", True  # QEMU runs on by itself
            exact = guest.migration != "completed"
            return Proceeded(status=self._status(), memory=None if exact else _digest(guest.value))

        return self._world.call(act)

    def memory(self, _shard: ShardId, request: MemoryRequest) -> MemoryPatch:
        def act() -> MemoryPatch:
            self._accept(request)
            return MemoryPatch(indexes=request.indexes, data_hex=(str(self._guest.value),))

        return self._world.call(act)

    def cancel(self, _shard: ShardId, command: MoveCommand) -> SourceStatus:
        def act() -> SourceStatus:
            self._accept(command)
            guest = self._guest
            if guest.migration in ("active", "pre-switchover"):
                guest.migration = "cancelled"
            guest.mirror, guest.running = False, True
            return self._status()

        return self._world.call(act)

    def resume(self, _shard: ShardId, command: MoveCommand) -> SourceStatus:
        def act() -> SourceStatus:
            if command.epoch <= self._guest.ceded_epoch:
                raise StaleEpoch("given away")
            self._accept(command)
            self._guest.running, self._guest.ceded_epoch = True, 0
            return self._status()

        return self._world.call(act)

    def release(self, _shard: ShardId, epoch: int) -> None:
        def act() -> None:
            self._accept_epoch(epoch)
            self._guest.alive = self._guest.running = False

        self._world.call(act)

    def _landing_alive(self) -> bool:
        landing = self._world.destination
        return landing is not None and landing.alive

    def _accept(self, command: MoveCommand) -> None:
        self._accept_epoch(command.epoch)
        if not self._guest.alive:
            raise NotFound("the guest is gone")

    def _accept_epoch(self, epoch: int) -> None:
        if epoch < self._guest.stored_epoch:
            raise StaleEpoch("old epoch")
        self._guest.stored_epoch = epoch

    def _status(self) -> SourceStatus:
        guest = self._guest
        if not guest.alive:
            raise NotFound("the guest is gone")
        if guest.mirror and not self._landing_alive():
            guest.mirror = False
        return SourceStatus(
            running=guest.running, mirror_ready=guest.mirror, mirror_present=guest.mirror, migration=guest.migration,
            remaining_bytes=1000, bytes_per_second=1e6, transferred_bytes=5,
        )  # fmt: skip


class DestinationAgent:
    def __init__(self, world: World) -> None:
        self._world = world

    def reserve(self, _shard: ShardId, request: ReserveRequest) -> None:
        self._world.call(lambda: self._accept(request.epoch))

    def prepare(self, _shard: ShardId, request: PrepareRequest) -> Landing:
        def act() -> Landing:
            self._accept(request.epoch)
            here = self._world.destination
            if here is None or not here.alive:
                self._world.destination = Guest(incoming=True, value=-1)
            return Landing(node=DESTINATION, host="10.0.0.2", memory_port=1, disk_port=2)

        return self._world.call(act)

    def patch(self, _shard: ShardId, request: PatchRequest) -> None:
        def act() -> None:
            self._accept(request.epoch)
            if self._world.destination is not None:
                self._world.destination.value = int(request.patch.data_hex[0])

        self._world.call(act)

    def commit(self, _shard: ShardId, command: CommitRequest) -> Committed:
        def act() -> Committed:
            self._accept(command.epoch)
            here = self._world.destination
            if here is None or not here.alive:
                raise NotFound("the guest is gone")
            if not here.arrived:
                raise MoveFailed("not arrived")
            if command.memory is not None and not here.committed and command.memory != _digest(here.value):
                return Committed(differing=(0,))
            here.incoming, here.committed, here.running = False, True, True
            return Committed()

        return self._world.call(act)

    def abort(self, _shard: ShardId, command: MoveCommand) -> DestinationStatus:
        def act() -> DestinationStatus:
            self._accept(command.epoch)
            here = self._world.destination
            if here is not None and here.incoming:
                self._world.destination = None
            return DestinationStatus(present=False)

        return self._world.call(act)

    def destination_status(self, _shard: ShardId) -> DestinationStatus:
        def act() -> DestinationStatus:
            here = self._world.destination
            if here is None:
                return DestinationStatus(present=False)
            return DestinationStatus(
                present=here.alive, arrived=here.arrived, committed=here.committed, running=here.running,
                migration="completed" if here.arrived else "active",
            )  # fmt: skip

        return self._world.call(act)

    def _accept(self, epoch: int) -> None:
        if epoch < self._world.destination_epoch:
            raise StaleEpoch("old epoch")
        self._world.destination_epoch = epoch


def _digest(value: int) -> MemoryDigest:
    return MemoryDigest(sums_hex=f"{value:08x}")


def request(deadline: datetime | None = None) -> MoveRequest:
    return MoveRequest(
        id=MoveId("m1"), shard=SHARD, source=SOURCE, destination=DESTINATION, cause=MoveCause.OPERATOR,
        deadline=deadline,
    )  # fmt: skip
