"""A simulated node: an agent that obeys the real fences (agent.fences), and QEMU as it behaves on its own.

A guest's memory and disk are one number each: the last write that they have seen. What an agent writes down (epochs,
records) survives its death, as do the guests; reservations do not.
"""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from agent import fences
from agent.guest import GuestRecord
from agent.wire import (
    AbortRequest,
    CommitRequest,
    Committed,
    DestinationStatus,
    GuestProfile,
    GuestState,
    KeepRequest,
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
    SwitchoverRequest,
    TuneRequest,
)
from engine.errors import ConcurrentUpdate, MoveFailed, NotFound, ProviderUnavailable, ShardwrightError, UsageError
from engine.model.capacity import Resources
from engine.model.ids import MoveId, NodeId, ShardId

if TYPE_CHECKING:
    from tests.move_simulator.world import World

SHARD = ShardId("s1")
RESOURCES = Resources(vcpus=1, memory_gib=0.125)
RECORD = GuestRecord(
    shard=SHARD, resources=RESOURCES, image="records", address="10.9.0.2/16", mac="52:54:00:09:00:02", disk_mib=64,
    profile=GuestProfile(
        qemu_version="7.2", machine="pc", accelerator="tcg", cpu="max", image_digest="d", bare_stream=True
    ),
    network=NetworkMode.BRIDGE,
)  # fmt: skip
_ENDED = ("completed", "failed", "cancelled", "none")


class Busy(Exception):
    """The guest is at another command: this one waits."""


@dataclass(eq=False)
class Guest:
    record: GuestRecord
    alive: bool = True
    running: bool = False
    runs_on_since: float | None = None
    """QEMU lets it run on by itself, since the rest of it could not be sent."""
    memory: int = -1
    disk: int = -1
    migration: str = "none"
    mirror_to: "Guest | None" = None
    mirror_ready: bool = False
    mirrored: bool = False
    lossless: bool = False
    """No page of what is sent now gets lost: QEMU's own count says so."""
    exact: bool = False
    exported: bool = False
    """Its disk is written through an export, which must be closed before post-copy may let it run."""
    post_copy: bool = False
    landed: bool = False
    sends_to: "Guest | None" = None
    arrived: bool = False
    busy: bool = False
    heard: float = 0.0
    silent_until: float = 0.0
    """Its QEMU has stalled: the guest runs on, and its monitor does not answer."""

    def save(self, **changes: object) -> None:
        self.record = self.record.model_copy(update=changes)


@dataclass(eq=False)
class SimNode:
    name: NodeId
    world: "World"
    alive: bool = True
    """The agent, not the guests."""
    life: int = 0
    gone: bool = False
    """For good, with everything on it."""
    epochs: dict[ShardId, int] = field(default_factory=dict)
    guest: Guest | None = None
    reservations: dict[MoveId, float] = field(default_factory=dict)

    # -- what the agent does by itself

    def die(self, seconds: float) -> None:
        if self.alive:
            self.alive, self.life = False, self.life + 1
            self.world.timeline.later(seconds, self._start)

    def _start(self) -> None:
        if self.gone:
            return
        self.alive, self.reservations = True, {}
        if self.guest is not None:
            self.guest.busy, self.guest.heard = False, self.world.timeline.seconds
            self.guest.mirrored, self.guest.exact = False, False

    def watch(self) -> None:
        """agent.keeping.Keeper.look"""
        here = self.guest
        if not self.alive or here is None or here.busy or not here.alive or self._is_silent(here):
            return
        if fences.must_finish(here.record):
            self._finish(here)
        if here.record.move is None:
            return
        self.stop_given_away(here)
        move, unheard = here.record.move, self.world.timeline.seconds - here.heard
        if not fences.must_ask(here.record, running=here.running, unheard_seconds=unheard):
            return
        try:
            verdict = self.world.ask_store(self, KeepRequest(move=move, epoch=self.epochs.get(SHARD, 0)))
            if self.alive and self.guest is here and fences.may_run_on(here.record, move, verdict):
                self.resume(MoveCommand(move=move, epoch=verdict.epoch))
        except (ShardwrightError, Busy):
            return

    # -- destination

    def reserve(self, request: ReserveRequest) -> None:
        self._accept(request)
        if self.guest is None or self.guest.record.ceded_epoch:
            self.reservations[request.move] = self.world.timeline.seconds + request.ttl_seconds

    def prepare(self, request: PrepareRequest) -> Landing:
        self._accept(request)
        here = self.guest
        landing = Landing(node=self.name, host="h", memory_port=1, disk_port=2, post_copy=request.post_copy)
        if here is not None:
            if here.record.move == request.move and here.record.incoming and here.alive:
                return landing
            fences.may_make_way(here.record, request)
            if here.busy:
                raise Busy
            if not (here.record.incoming or here.record.ceded_epoch or not here.alive):
                raise ConcurrentUpdate("it runs here")
            self._discard()
        self.reservations.pop(request.move, None)
        waiting = {"move": request.move, "incoming": True, "pid": 1}
        self.guest = Guest(RECORD.model_copy(update=waiting), exported=True)
        return landing

    def commit(self, command: CommitRequest) -> Committed:
        here = self._driven(command, fences.may_commit)
        if not here.alive:
            raise NotFound("the guest is gone")
        self._await_memory(here)
        if command.memory is not None and here.record.incoming and command.memory != _digest(here.memory):
            return Committed(differing=(0,))
        if not here.record.incoming and here.running and not here.record.committing:
            if here.arrived and here.record.receiving:
                here.save(receiving=False, move=None)
            return Committed()
        life, receiving = self.life, not here.arrived
        here.save(incoming=False, receiving=receiving, move=command.move if receiving else None, committing=True)
        if self.world.dice.random() < 0.02 * self.world.chaos:
            self.die(self.world.dice.uniform(0.5, 40))
        if self.life != life:
            raise ProviderUnavailable("the agent has died")
        self._finish(here)
        return Committed()

    def _await_memory(self, here: Guest) -> None:
        if not here.record.incoming:
            return
        life, here.exported, here.busy = self.life, False, True
        self.world.timeline.until(lambda: here.landed or not here.alive or self.life != life, 5.0)
        if self.life != life:
            raise ProviderUnavailable("the agent has died")
        here.busy = False
        if not here.alive:
            raise NotFound("the guest is gone")
        if not here.landed:
            raise MoveFailed("it has not arrived")

    def _finish(self, here: Guest) -> None:
        if not here.running:
            self.world.starts(here)
        here.save(committing=False)

    def restart(self, command: MoveCommand) -> None:
        here = self._driven(command, fences.may_commit, asks=False)
        if here.record.incoming or here.record.receiving:
            if here.alive and here.arrived and not self._is_silent(here):
                raise MoveFailed("it has arrived")
            if here.alive and here.record.receiving:
                self.world.require_lost(here)
            here.alive = here.running = False
            # Another process: nothing that is sent to the old one reaches it.
            here = self.guest = replace(here, silent_until=0.0)
            here.save(incoming=False, receiving=False, move=None, booting=True)
        if here.record.booting:
            if self.world.dice.random() < 0.3 * self.world.chaos:
                self.die(self.world.dice.uniform(0.5, 40))
                raise ProviderUnavailable("the agent has died")
            here.alive, here.memory, here.migration = True, here.disk, "none"
            self.world.starts(here)
            here.save(booting=False)

    def claim(self, command: MoveCommand) -> DestinationStatus:
        here = self._driven(command, fences.may_commit)
        here.exported = False
        return self.destination_status()

    def listen_again(self, command: MoveCommand) -> Landing:
        here = self._driven(command, fences.in_move)
        if not here.migration.startswith("postcopy"):
            raise UsageError("nothing is to be recovered")
        here.migration = "postcopy-paused"
        return Landing(node=self.name, host="h", memory_port=3, disk_port=2, post_copy=True)

    def send_again(self, request: MirrorRequest) -> SourceStatus:
        here = self._driven(request, fences.in_move)
        self.world.reconnect(here)
        return self.source_status()

    def patch(self, request: PatchRequest) -> None:
        here = self._driven(request, fences.in_move)
        if not here.record.incoming:
            raise UsageError("it has run")
        here.memory = int(request.patch.data_hex[0])

    def destination_status(self) -> DestinationStatus:
        here = self.guest
        if here is None:
            return DestinationStatus(present=False)
        committed = not here.record.incoming and not here.record.ceded_epoch
        if not here.alive:
            return DestinationStatus(
                present=False, committed=committed, receiving=here.record.receiving, booting=here.record.booting
            )  # fmt: skip
        if self._is_silent(here):
            return DestinationStatus(
                present=True, silent=True, committed=committed, receiving=here.record.receiving,
                booting=here.record.booting,
            )  # fmt: skip
        word = here.migration if here.migration.startswith("postcopy") else "active"
        landed = here.arrived or word == "postcopy-active"
        return DestinationStatus(
            present=True, committed=committed, arrived=here.arrived, running=here.running, landed=landed,
            receiving=here.record.receiving, migration="completed" if here.arrived else word,
        )  # fmt: skip

    # -- source

    def shard(self) -> ShardStatus:
        here = self._here()
        state = GuestState.RUNNING if here.running else GuestState.PAUSED
        state = GuestState.INCOMING if here.record.incoming else state if here.alive else GuestState.DEAD
        return ShardStatus(
            shard=SHARD, epoch=self.epochs.get(SHARD, 0), state=state, resources=RESOURCES, address="10.9.0.2/16",
            mac=here.record.mac, disk_mib=64, image="records", profile=RECORD.profile, network=NetworkMode.BRIDGE,
            move=here.record.move,
        )  # fmt: skip

    def source_status(self) -> SourceStatus:
        here = self._here()
        if not here.alive:
            raise NotFound("the guest is gone")
        if self._is_silent(here):
            raise ProviderUnavailable("QEMU does not answer")
        return SourceStatus(
            running=here.running, mirror_ready=here.mirror_ready, mirror_present=here.mirror_to is not None,
            mirrored=fences.still_mirrored(
                here.record, here.mirrored, running=here.running, migration=here.migration
            ),
            exact=here.exact, migration=fences.word_on(here.record, here.migration),
            remaining_bytes=self.world.remaining(here), bytes_per_second=1e6,
        )  # fmt: skip

    def mirror(self, request: MirrorRequest) -> SourceStatus:
        here = self._driven(request, fences.may_join)
        here.save(move=request.move, committing=False)
        if here.mirror_to is None and here.migration in _ENDED and here.alive and fences.may_mirror(here.record):
            self.world.start_mirror(self, here, request.landing.node)
        return self.source_status()

    def precopy(self, request: MirrorRequest) -> SourceStatus:
        here = self._driven(request, fences.in_move)
        if not (here.mirror_ready or here.migration not in _ENDED):
            raise MoveFailed("memory cannot go before the disk is mirrored")
        if self.source_status().migration in _ENDED and here.alive:
            here.save(sent_for=request.move)
            self.world.start_copy(self, here, request.landing.node)
        return self.source_status()

    def tune(self, request: TuneRequest) -> SourceStatus:
        here = self._driven(request, fences.in_move)
        if request.post_copy and self.world.dice.random() < 0.2 * self.world.chaos:
            raise MoveFailed("memory may have been lost on its way")
        self.world.converges_sooner(here)
        if request.stop_guest:
            here.running = False
        if request.post_copy:
            self.world.switches_to_post_copy(here)
        return self.source_status()

    def switchover(self, command: MoveCommand, wait_seconds: float) -> SourceStatus:
        here, life = self._admitted(command, fences.in_move), self.life
        here.heard = self.world.timeline.seconds
        reached = ("pre-switchover", "device", *_ENDED)
        self.world.timeline.until(lambda: here.migration in reached or self.life != life, wait_seconds)
        if self.life != life:
            raise ProviderUnavailable("the agent has died")
        if here.migration == "pre-switchover" and here.mirror_to is not None:
            self._driven(command, fences.in_move)
            self._hand_over(here, send_rest=isinstance(command, SwitchoverRequest) and command.send_rest)
        return self.source_status()

    def _hand_over(self, here: Guest, *, send_rest: bool) -> None:
        life, complete, here.busy = self.life, here.mirror_ready, True
        here.mirror_to, here.mirror_ready = None, False
        if send_rest:
            here.save(handing_over=True)
        if self.world.dice.random() < 0.02 * self.world.chaos:
            self.die(self.world.dice.uniform(0.5, 40))
        self.world.timeline.sleep(0.003)
        if self.life != life:
            raise ProviderUnavailable("the agent has died")
        here.busy = False
        here.mirrored, here.exact = complete, here.lossless
        if complete and send_rest:
            self.world.send_rest(here, lambda: self.stop_given_away(here) if self.life == life else None)

    def stop_given_away(self, here: Guest) -> None:
        """QEMU runs it on where the rest cannot be sent."""
        if fences.must_stop(here.record, running=here.running) and not self._is_silent(here):
            here.running, here.mirrored, here.runs_on_since = False, False, None

    def cease(self, command: MoveCommand) -> SourceStatus:
        here = self._driven(command, fences.in_move)
        if not self.source_status().mirrored:
            if here.mirror_to is None or not here.mirror_ready:
                raise MoveFailed("the disk is not mirrored")
            here.running = False
            here.mirror_to, here.mirror_ready, here.mirrored = None, False, True
        return self.source_status()

    def proceed(self, command: MoveCommand) -> Proceeded:
        here, life = self._driven(command, fences.in_move), self.life
        if not here.record.ceded_epoch:
            here.save(ceded_epoch=command.epoch)
        here.busy = True
        self.world.send_rest(here)
        self.world.timeline.until(lambda: _sent(here) or self.life != life or not here.alive, 30)
        if self.life != life:
            raise ProviderUnavailable("the agent has died")
        here.busy = False
        self.stop_given_away(here)
        if here.alive and not _sent(here):
            raise MoveFailed("the last part of the memory takes too long")
        compared = here.migration == "completed" and not here.exact
        return Proceeded(status=self.source_status(), memory=_digest(here.memory) if compared else None)

    def memory(self, request: MemoryRequest) -> MemoryPatch:
        here = self._admitted(request, fences.in_move)
        if not here.record.ceded_epoch:
            raise UsageError("it runs here")
        return MemoryPatch(indexes=request.indexes, data_hex=(str(here.memory),))

    # -- either

    def resume(self, command: MoveCommand) -> SourceStatus:
        here = self._here()
        fences.may_run(here.record, command.move, command.epoch)
        self._accept(command)
        if here.busy:
            raise Busy
        if fences.may_run(here.record, command.move, command.epoch):
            if not here.alive:
                here.save(move=None, ceded_epoch=0, handing_over=False)
                raise NotFound("the guest is gone")
            if self._is_silent(here):
                raise MoveFailed("the guest does not answer")
            if here.migration.startswith("postcopy"):
                here.alive = here.running = False
                here.save(move=None, ceded_epoch=0, handing_over=False)
                raise NotFound("the guest is gone")
            if here.migration == "device":
                self.world.cancels_late(here)
            if here.migration not in _ENDED:
                here.migration = "cancelled"
            here.mirror_to, here.mirror_ready, here.sends_to, here.mirrored = None, False, None, False
            here.runs_on_since = None
            if not here.running:
                self.world.starts(here)
            here.save(move=None, ceded_epoch=0, handing_over=False)
        return self.source_status()

    def abort(self, command: MoveCommand) -> DestinationStatus:
        self._accept(command)
        self.reservations.pop(command.move, None)
        given_away = isinstance(command, AbortRequest) and command.given_away
        if self.guest is not None and fences.may_kill(self.guest.record, command, given_away=given_away):
            if self.guest.busy:
                raise Busy
            self._discard()
        return self.destination_status()

    def release(self, epoch: int) -> None:
        if self.guest is None and self.epochs.get(SHARD, 0) == epoch + 1:
            return
        fences.current(SHARD, self.epochs.get(SHARD, 0), epoch)
        self.epochs[SHARD] = epoch
        if self.guest is not None and self.guest.busy:
            raise Busy
        self._discard()
        self.epochs[SHARD] = epoch + 1

    # -- inside

    def _here(self) -> Guest:
        if self.guest is None:
            raise NotFound("no such shard here")
        return self.guest

    def _accept(self, command: MoveCommand) -> None:
        fences.current(SHARD, self.epochs.get(SHARD, 0), command.epoch)
        self.epochs[SHARD] = command.epoch

    def _admitted(self, command: MoveCommand, rule: object) -> Guest:
        here = self._here()
        rule(here.record, command)  # type: ignore[operator]
        self._accept(command)
        here.heard = self.world.timeline.seconds
        return here

    def _driven(self, command: MoveCommand, rule: object, *, asks: bool = True) -> Guest:
        """``asks``: its QEMU is told something."""
        here = self._admitted(command, rule)
        if here.busy:
            raise Busy
        if asks and here.alive and self._is_silent(here):
            raise NotFound("QEMU does not answer")
        return here

    def _is_silent(self, here: Guest) -> bool:
        return here.silent_until > self.world.timeline.seconds

    def _discard(self) -> None:
        if self.guest is not None:
            self.guest.alive = self.guest.running = False
            self.guest = None


def _sent(here: Guest) -> bool:
    return here.migration in _ENDED or here.migration.startswith("postcopy")


def _digest(value: int) -> MemoryDigest:
    return MemoryDigest(sums_hex=f"{value & 0xFFFFFFFF:08x}")
