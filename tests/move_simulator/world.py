"""Moves between three nodes in simulated time, with everything going wrong that can, from a seed.

``simulate(seed)`` raises LawBroken. The laws, after every event:

- at most one guest of the shard runs, and only where the store says (but for the moments in which QEMU runs on by
  itself after a copy that broke, before its agent stops it);
- what runs has seen every write that was acknowledged;
- a guest that its node owns does not stay paused while that node can ask the store;
- a guest that runs is not ended because a QEMU does not answer for a while, as long as its memory can still come.

At the end, once everything is mended: every move is settled, nothing of it is left on any node, the shard runs on its
owner with every acknowledged write (or has died with its guest, and its owner's disk has them all), and no move took
longer than its bound.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from math import inf
from random import Random

from agent.fences import UNHEARD_SECONDS
from agent.wire import KeepRequest, Verdict
from engine.errors import MoveFailed, ProviderUnavailable
from engine.migration.base import MoveLimits
from engine.model.ids import MoveId, NodeId
from engine.model.move import MovePhase, MoveReport, MoveRequest
from engine.model.plan import MoveCause
from tests.move_simulator.control import Control, ControllerDied, Store
from tests.move_simulator.node import RECORD, SHARD, Guest, SimNode
from tests.move_simulator.timeline import Timeline

NODES = (NodeId("nA"), NodeId("nB"), NodeId("nC"))
_CALLS_SECONDS = 180.0
"""On top of a move's bound: calls that were under way when it was over, and clearing up."""
_WATCH_SECONDS = 5.0
_RUN_ON_SECONDS = 2 * _WATCH_SECONDS
_MENDED_SECONDS = 900.0
_LATEST_SECONDS = 160.0
"""When the latest message has arrived (see Client._again)."""
_LEFT_SECONDS = UNHEARD_SECONDS + 3 * _WATCH_SECONDS


_MISHAPS = ("agent", "cut", "part", "kill", "power", "second", "mirror", "gone", "cancel", "stall")


class LawBroken(BaseException):
    """Not an Exception: the code under test must not catch it."""


@dataclass(frozen=True)
class Faults:
    """Chances: per message (lost, late, twice), per step of the controller (crash), per call of the store."""

    lost: float = 0.0
    late: float = 0.0
    twice: float = 0.0
    crash: float = 0.0
    hang: float = 0.0
    store: float = 0.0


class Planned(StrEnum):
    """What happens at one call of the controller, counted from 0 over its calls of nodes and store."""

    REQUEST_LOST = "request_lost"
    ANSWER_LOST = "answer_lost"
    CRASH_BEFORE = "crash_before"
    CRASH_AFTER = "crash_after"
    KILL_SOURCE = "kill_source"
    KILL_DESTINATION = "kill_destination"


class World:
    def __init__(self, seed: int = 0, *, quiet: bool = False, planned: Mapping[int, Planned] | None = None) -> None:
        """``quiet``: nothing goes wrong but what is ``planned``."""
        self.dice = Random(seed)
        self.timeline = Timeline(self.check)
        self.acknowledged = 0
        self.killed = False
        self._left_since, self._moves = 0.0, 0
        self._cuts: dict[tuple[str, str], float] = {}
        self.nodes = {name: SimNode(name, self) for name in NODES}
        self.store = Store(NODES[0])
        self.nodes[NODES[0]].guest = Guest(RECORD, running=True, memory=0, disk=0)
        self.nodes[NODES[0]].epochs[SHARD] = 1
        # Without a source to compare with, memory is taken as it came: what loses some needs a source that answers.
        self.loses_memory = self.dice.random() < 0.1
        self.phases: list[MovePhase] = []
        self.cancelled: set[MoveId] = set()
        self.planned, self.calls = dict(planned or {}), 0
        self.chaos = 0.0 if quiet else 1.0
        self.post_copy = not quiet and self.dice.random() < 0.4
        self.faults = Faults() if quiet else self._faults()
        if quiet:
            self.loses_memory = False
        self.control = Control(self)
        self.timeline.later(_WATCH_SECONDS, self._watch)
        for _ in range(0 if quiet or self.loses_memory else self.dice.randrange(5)):
            self.timeline.later(self.dice.uniform(0, 60), self._mishap)

    def _faults(self) -> Faults:
        chance = lambda most: self.dice.choice((0.0, 0.0, most * self.dice.random()))  # noqa: E731
        if self.loses_memory:
            return Faults(twice=chance(0.3), crash=chance(0.05))
        return Faults(
            lost=chance(0.2), late=chance(0.1), twice=chance(0.3), crash=chance(0.05), hang=chance(0.1),
            store=chance(0.05),
        )  # fmt: skip

    # -- laws

    def check(self) -> None:
        """Whoever runs writes once, and the laws hold."""
        running = [(node, node.guest) for node in self.nodes.values() if node.guest is not None and node.guest.running]
        if len(running) > 1:
            raise LawBroken(f"two copies run: {', '.join(node.name for node, _ in running)}")
        for node, here in running:
            if here.runs_on_since is not None:
                self._is_stopped_in_time(node, here, here.runs_on_since)
            elif node.name != self.store.owner:
                raise LawBroken(f"runs on {node.name}, and {self.store.owner} owns it at epoch {self.store.epoch}")
            if here.memory != self.acknowledged or here.disk != self.acknowledged:
                raise LawBroken(f"runs on {node.name} with {here.memory}, {here.disk} of {self.acknowledged} writes")
            self.acknowledged += 1
            here.memory = here.disk = self.acknowledged
            if here.mirror_to is not None and not here.mirror_to.alive:
                here.mirror_to, here.mirror_ready = None, False
            if here.mirror_to is not None and here.mirror_ready:
                here.mirror_to.disk = here.disk
            if here.migration == "active" and here.sends_to is not None and not here.sends_to.alive:
                here.migration, here.mirror_to, here.mirror_ready = "failed", None, False

    def _is_stopped_in_time(self, node: SimNode, here: Guest, since: float) -> None:
        """One that QEMU lets run on by itself, by the agent that lives or comes back."""
        unstopped = self.timeline.seconds - max(since, here.heard, here.silent_until)
        if node.alive and not here.busy and unstopped > _RUN_ON_SECONDS:
            raise LawBroken(f"runs on by itself on {node.name}, and nobody stops it")

    def require_lost(self, here: Guest) -> None:
        """Before a guest that runs in post-copy is ended."""
        for one in self.nodes.values():
            source = one.guest
            if source is None or source.sends_to is not here or not source.alive:
                continue
            stalled = max(source.silent_until, here.silent_until) > self.timeline.seconds
            if stalled and source.migration in ("postcopy-active", "completed"):
                raise LawBroken("a guest that runs is ended, since a QEMU has stalled")

    # -- the network

    def before_call(self) -> Planned | None:
        """Raises what is planned for the next call; returns what is to happen after it."""
        fault = self.planned.get(self.calls)
        self.calls += 1
        if fault is Planned.CRASH_BEFORE:
            raise ControllerDied
        if fault is Planned.REQUEST_LOST:
            raise ProviderUnavailable("lost")
        if fault in (Planned.KILL_SOURCE, Planned.KILL_DESTINATION):
            self._kill(self.nodes[NODES[0] if fault is Planned.KILL_SOURCE else NODES[1]])
        return fault

    @staticmethod
    def after_call(fault: Planned | None) -> None:
        if fault is Planned.CRASH_AFTER:
            raise ControllerDied
        if fault is Planned.ANSWER_LOST:
            raise ProviderUnavailable("lost")

    def cut(self, one: str, other: str) -> bool:
        return self._cuts.get((one, other), 0.0) > self.timeline.seconds

    def ask_store(self, node: SimNode, asked: KeepRequest) -> Verdict:
        if self.cut(node.name, "control") or self.dice.random() < self.faults.lost:
            raise ProviderUnavailable("no answer")
        verdict = self.control.verdict(node.name, asked)
        life = node.life
        self.timeline.sleep(self.dice.choice((0.005, 0.005, 4.0)))
        if self.cut("control", node.name) or self.dice.random() < self.faults.lost or node.life != life:
            raise ProviderUnavailable("the answer is lost")
        return verdict

    # -- QEMU

    def starts(self, here: Guest) -> None:
        here.running, here.runs_on_since = True, None
        self.check()

    def start_mirror(self, node: SimNode, here: Guest, target: NodeId) -> None:
        there = self._landing(node, here, target)
        if there is None:
            raise MoveFailed("the destination's disk cannot be reached")
        here.mirror_to, here.mirror_ready, here.mirrored = there, False, False

        def ready() -> None:
            if here.mirror_to is there and here.alive and there.alive:
                here.mirror_ready, there.disk = True, here.disk

        self.timeline.later(self.dice.choice((0.2, 5.0)) if self.chaos else 0.2, ready)

    def start_copy(self, node: SimNode, here: Guest, target: NodeId) -> None:
        there = self._landing(node, here, target)
        here.migration, here.sends_to = ("failed", None) if there is None else ("active", there)
        here.lossless = not self.loses_memory and self.dice.random() < 0.7
        seconds = 1000 if self.dice.random() < 0.15 else self.dice.choice((0.2, 3.0, 25.0))
        self.timeline.later(seconds if self.chaos else 0.2, lambda: self._converge(here, there))

    def converges_sooner(self, here: Guest) -> None:
        there = here.sends_to
        if self.dice.random() < (0.1 if self.post_copy else 0.8) or not self.chaos:
            self.timeline.later(0.5, lambda: self._converge(here, there))

    def switches_to_post_copy(self, here: Guest) -> None:
        """migrate-start-postcopy: it pauses for the switchover, however much is left."""
        there = here.sends_to
        here.post_copy = True
        self.timeline.later(0.3, lambda: self._converge(here, there))

    def reconnect(self, here: Guest) -> None:
        there = here.sends_to
        if there is None or not there.alive or self.cut(*self._between(here, there)):
            raise MoveFailed("the connection cannot be made again")
        if here.migration.startswith("postcopy") and not there.arrived:
            here.migration = there.migration = "postcopy-active"
            self._follow(here, there)

    def _follow(self, here: Guest, there: Guest) -> None:
        """The rest of the memory, beside a guest that may run already."""

        def finish() -> None:
            if here.migration != "postcopy-active" or not here.alive or not there.alive:
                return
            if self.cut(*self._between(here, there)):
                here.migration = there.migration = "postcopy-paused"
                self._may_stick(there)
            else:
                here.migration, there.migration, there.arrived = "completed", "none", True

        self.timeline.later(self.dice.choice((0.5, 4.0, 30.0)) if self.chaos else 0.5, finish)
        if self.chaos and self.dice.random() < 0.15:
            source = next(node for node in self.nodes.values() if node.guest is here)
            self.timeline.later(0.4, lambda: self._kill(source) if source.guest is here else None)
        elif self.chaos and self.dice.random() < 0.6:
            self.timeline.later(0.4, lambda: self._stall(self.dice.choice((here, there))))

    def _converge(self, here: Guest, there: Guest | None) -> None:
        if here.migration != "active" or here.sends_to is not there or there is None or not here.alive:
            return
        if not there.alive:
            here.migration, here.mirror_to, here.mirror_ready = "failed", None, False
        elif self.cut(*self._between(here, there)):
            self.timeline.later(1.0, lambda: self._converge(here, there))
        else:
            here.migration, here.running = "pre-switchover", False

    def remaining(self, here: Guest) -> int:
        return 50_000_000 if here.migration == "active" else 0

    def send_rest(self, here: Guest, seen: Callable[[], None] = lambda: None) -> None:
        """migrate-continue: the guest has stood still since pre-switchover. ``seen``: a moment after the end of it."""
        if here.migration != "pre-switchover":
            return
        here.migration, there = "device", here.sends_to
        fails = self.dice.random() < 0.04 * self.chaos

        def finish() -> None:
            self.timeline.later(0.002, seen)
            if here.migration != "device" or there is None or here.sends_to is not there:
                return  # it was cancelled, and perhaps another one has begun
            if not here.alive:
                there.alive = there.arrived  # an incoming QEMU ends with its connection
            elif there.alive and here.post_copy and not self.cut(*self._between(here, there)):
                if there.exported:
                    raise LawBroken("post-copy lets the guest run while its disk is exported")
                here.migration = there.migration = "postcopy-active"
                there.memory, there.landed = here.memory, True
                self._follow(here, there)
            elif there.alive and not fails and not self.cut(*self._between(here, there)):
                here.migration = "completed"
                self._lands(here, there)
            else:
                here.migration, here.running, here.runs_on_since = "failed", True, self.timeline.seconds
                there.alive = there.alive and not fails

        self.timeline.later(self.dice.choice((0.001, 0.02, 0.02, 6.0, 40.0)) if self.chaos else 0.02, finish)

    def _lands(self, here: Guest, there: Guest) -> None:
        there.memory = here.memory - int(not here.lossless and self.loses_memory)
        self.timeline.later(self.dice.choice((0.0, 0.01, 2.0)), lambda: _arrive(there))

    def cancels_late(self, here: Guest) -> None:
        """migrate_cancel, when everything may have been sent."""
        there = here.sends_to
        if there is not None and there.alive and not here.post_copy and self.dice.random() < 0.5 * self.chaos:
            self._lands(here, there)

    def _landing(self, node: SimNode, here: Guest, target: NodeId) -> Guest | None:
        there = self.nodes[target].guest
        fits = there is not None and there.alive and there.record.incoming and there.record.move == here.record.move
        return there if fits and not self.cut(node.name, target) else None

    def _between(self, here: Guest, there: Guest) -> tuple[str, str]:
        names = {node.guest: node.name for node in self.nodes.values() if node.guest is not None}
        return str(names.get(here)), str(names.get(there))

    # -- what goes wrong by itself

    def _watch(self) -> None:
        self.timeline.later(_WATCH_SECONDS, self._watch)
        for node in self.nodes.values():
            node.watch()
        self._no_guest_is_left_paused()

    def _no_guest_is_left_paused(self) -> None:
        """A law about time: where a node may run its guest and can ask, nobody else is needed for that."""
        node = self.nodes[self.store.owner]
        here = node.guest
        can_ask = node.alive and self.control.up and not self.cut(node.name, "control")
        left = here is not None and here.alive and not here.running and not here.busy and not here.record.incoming
        left = left and here is not None and not here.record.receiving
        if not (left and can_ask and not self.cut("control", node.name) and not self.faults.lost):
            self._left_since = self.timeline.seconds
        elif here is not None and self._left(here) > _LEFT_SECONDS:
            raise LawBroken(f"the guest on {node.name} was left paused by {here.record.move}")

    def _left(self, here: Guest) -> float:
        return self.timeline.seconds - max(self._left_since, here.heard, here.silent_until)

    def _mishap(self) -> None:
        if not self.chaos:
            return
        node, other = self.dice.sample(sorted(self.nodes), 2)
        what = self.dice.choice((*_MISHAPS, "agent", "cut", "part", "mirror"))
        if what == "agent":
            self.nodes[node].die(self.dice.choice((0.5, 5.0, 60.0)))
        elif what == "cut":
            ends = self.dice.choice((("control", node), (node, "control"), (node, other)))
            self._cuts[ends] = self.timeline.seconds + self.dice.choice((1.0, 15.0, 100.0))
        elif what == "part":
            self._part(node)
        elif what == "mirror":
            self._break_mirrors()
        elif what == "second":
            self._move("second")
        elif what == "cancel":
            self.cancelled.add(MoveId(f"m-{self._moves}"))
        elif what == "stall":
            self._stall(self.nodes[node].guest)
        elif what == "gone":
            self._lose(self.nodes[node])
        else:
            self._kill(self.nodes[node])
            if what == "power":
                self.nodes[node].die(self.dice.choice((5.0, 60.0)))

    def _lose(self, node: SimNode) -> None:
        """Taken back by its provider; the fleet hears of it a little later, and releases what it owned."""
        if any(one.gone for one in self.nodes.values()):
            return
        here = node.guest
        ran_on = here is not None and here.migration == "failed" and here.record.ceded_epoch + here.record.handing_over
        if ran_on:
            # What QEMU's own moment of running on was told is gone with the node; nobody else has had it.
            self.acknowledged = max(one.guest.disk for one in self.nodes.values() if one.guest not in (None, here))
        self._kill(node)
        node.die(0.0)
        node.gone, node.guest = True, None
        self.timeline.later(self.dice.choice((1.0, 30.0)), lambda: self.store.gone.add(node.name))

    def _part(self, node: NodeId) -> None:
        for ends in (("control", node), (node, "control")):
            self._cuts[ends] = self.timeline.seconds + self.dice.choice((5.0, 30.0, 100.0))

    def _stall(self, here: Guest | None) -> None:
        if here is not None:
            here.silent_until = self.timeline.seconds + self.dice.choice((3.0, 15.0, 100.0))

    def _may_stick(self, there: Guest) -> None:
        """Its QEMU itself waits for a page that the source has not sent, and hears nothing any more."""
        if self.chaos and self.dice.random() < 0.3:
            there.silent_until = inf

    def _break_mirrors(self) -> None:
        """The disk's connection ends, and the memory's lives on."""
        for node in self.nodes.values():
            if node.guest is not None:
                node.guest.mirror_to, node.guest.mirror_ready = None, False

    def _kill(self, node: SimNode) -> None:
        here = node.guest
        if here is not None and here.alive:
            self.killed = True
            here.alive = here.running = False
            if here.sends_to is not None and here.migration in ("active", "pre-switchover", "device"):
                here.sends_to.alive = here.sends_to.arrived  # an incoming QEMU ends with its connection
            if here.sends_to is not None and here.migration.startswith("postcopy") and not here.sends_to.arrived:
                here.sends_to.migration = "postcopy-paused"
                here.sends_to.running = False  # for good: what it touches next never comes
                self._may_stick(here.sends_to)

    # -- a run

    def _move(self, name: str) -> None:
        source = self.store.owner
        destination = self.dice.choice([node for node in NODES if node != source])
        deadline = None
        if self.dice.random() < 0.3:
            deadline = self.timeline.now() + timedelta(seconds=self.dice.choice((10, 60)))
        self._moves += 1
        self.control.run(request(f"{name}-{self._moves}", source, destination, deadline))

    def run(self) -> None:
        """As many moves as the seed says."""
        with self.control.recording():
            for _ in range(self.dice.choice((1, 1, 2, 3))):
                self._move("m")
                self.timeline.sleep(self.dice.choice((0.0, 20.0)))
            self._mend()

    def move(self, asked: MoveRequest) -> MoveReport:
        """That move alone; the report as it was when the move ended, before anything was swept."""
        with self.control.recording():
            self.control.run(asked)
            report = self.store.reports[asked.id]
            self._mend()
        return report

    def _mend(self) -> None:
        late = bool(self.faults.late or self.faults.twice)
        self.chaos, self.faults = 0.0, Faults()
        self._cuts.clear()
        for node in self.nodes.values():
            if node.guest is not None and node.guest.silent_until < inf:
                node.guest.silent_until = 0.0
        self.timeline.until(self._settled, _MENDED_SECONDS)
        # Late messages arrive, and a reservation that one of them makes runs out.
        self.timeline.sleep(MoveLimits().reserve_ttl + (_LATEST_SECONDS if late else 1.0))
        self._last_check()

    def _settled(self) -> bool:
        return self.control.up and not self.store.unsettled()

    def _last_check(self) -> None:
        if unsettled := self.store.unsettled():
            raise LawBroken(f"never settled: {[(one.request.id, one.phase, one.error) for one in unsettled]}")
        self._every_move_was_in_time()
        self._nothing_is_left_over()
        if self.store.owner not in self.store.gone:
            self._the_shard_is_well()

    def _every_move_was_in_time(self) -> None:
        limits = MoveLimits()
        longest = limits.before_commit(RECORD.disk_mib) + limits.after_commit() + _CALLS_SECONDS
        for move, took in self.control.worked.items():
            deadline = self.store.reports[move].request.deadline
            if took > longest + (60 if deadline else 0):
                raise LawBroken(f"move {move} took {took:.0f} s, not {longest:.0f}")

    def _nothing_is_left_over(self) -> None:
        for node in self.nodes.values():
            if any(until > self.timeline.seconds for until in node.reservations.values()):
                raise LawBroken(f"{node.name} keeps room for {node.reservations}")
            here = node.guest
            if here is not None and (node.name != self.store.owner or node.gone):
                raise LawBroken(f"{node.name} has kept {here}")

    def _the_shard_is_well(self) -> None:
        owner = self.nodes[self.store.owner].guest
        if owner is None:
            raise LawBroken("its owner does not have it")
        if owner.record.incoming or owner.record.ceded_epoch or (owner.alive and owner.record.move is not None):
            raise LawBroken(f"its owner is still in a move: {owner.record}")
        if owner.record.booting:
            raise LawBroken("its boot was begun and never ended")
        if not owner.running and not (self.killed and not owner.alive):
            raise LawBroken("it stands still")
        if owner.disk != self.acknowledged:
            raise LawBroken(f"{self.acknowledged - owner.disk} acknowledged writes are lost")


def _arrive(there: Guest) -> None:
    there.arrived = there.landed = there.alive


def request(
    name: str = "m1", source: NodeId = NODES[0], destination: NodeId = NODES[1], deadline: datetime | None = None
) -> MoveRequest:
    return MoveRequest(
        id=MoveId(name), shard=SHARD, source=source, destination=destination, cause=MoveCause.OPERATOR,
        deadline=deadline,
    )  # fmt: skip


def simulate(seed: int, *, quiet: bool = False) -> World:
    """Raises LawBroken; ``quiet``: nothing goes wrong."""
    world = World(seed, quiet=quiet)
    try:
        world.run()
    except ControllerDied as problem:
        raise LawBroken("a death of the control plane was not simulated") from problem
    return world
