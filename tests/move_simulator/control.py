"""The simulated control plane: the real workflow, sweep and keeping over a store and a network in memory.

It dies at any call and comes back; then its workflows go on behind the last step that was recorded, as DBOS does.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from agent.wire import KeepRequest, Verdict
from engine.errors import ProviderUnavailable, ShardwrightError, StaleEpoch, UnknownName
from engine.migration import workflow
from engine.migration.base import MoveContext, MoveLimits
from engine.migration.keeping import keep
from engine.migration.sweep import sweep
from engine.model.ids import MoveId, NodeId, PoolId, ShardId
from engine.model.move import UNSETTLED, MoveReport, MoveRequest
from engine.model.placement import Shard, ShardState
from tests.move_simulator.node import RESOURCES, SHARD, Busy, SimNode

if TYPE_CHECKING:
    from tests.move_simulator.world import World

_STEPS = ("_begin", "_reserve", "_prepare", "_mirror", "_transfer", "_end", "_now")
_ORIGINALS = {name: getattr(workflow, name).__wrapped__ for name in _STEPS}
_ASKS_ONLY = ("shard", "source_status", "destination_status")
_SWEEP_SECONDS = 10.0


class ControllerDied(BaseException):
    """kill -9 of the control plane: nothing catches it."""


class Store:
    """The shard map and the history of moves: one row with compare-and-swap, as engine.store.shard_map has it."""

    def __init__(self, owner: NodeId) -> None:
        self.owner, self.epoch, self.moved_by = owner, 1, MoveId("")
        self.gone: set[NodeId] = set()
        """Nodes that the fleet knows to be gone; what they own is released."""
        self.reports: dict[MoveId, MoveReport] = {}

    def get(self, _shard: ShardId) -> Shard:
        if self.owner in self.gone:
            raise UnknownName("the shard is released")
        return Shard(
            id=SHARD, shard_type="cpu.small", pool=PoolId("p"), node=self.owner, state=ShardState.BOUND,
            epoch=self.epoch, nominal=RESOURCES, address="10.9.0.2", mac="52:54:00:09:00:02",
        )  # fmt: skip

    def move(self, _shard: ShardId, *, expected_epoch: int, to_node: NodeId, move_id: MoveId | None = None) -> Shard:
        if self.owner in self.gone:
            raise UnknownName("the shard is released")
        if self.epoch == expected_epoch:
            self.owner, self.epoch, self.moved_by = to_node, expected_epoch + 1, move_id or MoveId("")
        elif (self.owner, self.epoch, self.moved_by) != (to_node, expected_epoch + 1, move_id):
            raise StaleEpoch(f"at epoch {self.epoch}, not {expected_epoch}")
        return self.get(SHARD)

    def unsettled(self) -> tuple[MoveReport, ...]:
        return tuple(report for report in self.reports.values() if report.phase in UNSETTLED)

    def put(self, report: MoveReport) -> None:
        self.reports[report.request.id] = report


class Control:
    def __init__(self, world: "World") -> None:
        self._world = world
        self.up = True
        self.excused = 0.0
        """Seconds in which no move could be worked on: the control plane was down, hung, or at another move."""
        self.worked: dict[MoveId, float] = {}
        self._dead = self._down = False
        self._deaths_left = 6
        """A control plane that dies for ever never comes to the end of its patience."""
        self._recorded: dict[tuple[MoveId, str], tuple[bool, Any]] = {}
        self._current: list[MoveId] = []
        self._pending: list[MoveRequest] = []
        self._sweeping = False
        self.context = MoveContext(
            agents=lambda node: Client(world, node),  # type: ignore[arg-type, return-value]
            shards=self,
            clock=self,
            observer=lambda _move, phase: world.phases.append(phase),
            cancelled=lambda move: move in world.cancelled,
            limits=MoveLimits(post_copy=world.post_copy),
        )
        world.timeline.later(_SWEEP_SECONDS, self._sweep)

    # -- a Clock and a ShardOwnership for the code under test

    def now(self) -> Any:
        return self._world.timeline.now()

    def sleep(self, seconds: float) -> None:
        self._world.timeline.sleep(seconds)
        self.live()

    def get(self, shard: ShardId) -> Shard:
        return self._stored(lambda: self._world.store.get(shard))

    def move(self, shard: ShardId, **swap: Any) -> Shard:
        self.live(4 * self._world.faults.crash)
        return self._stored(lambda: self._world.store.move(shard, **swap), hangs=8.0)

    def _stored(self, act: Callable[[], Shard], hangs: float = 1.0) -> Shard:
        world, before = self._world, self._world.timeline.seconds
        self.live(world.faults.crash)
        planned = world.before_call()
        fate = world.dice.random()
        world.timeline.sleep(world.dice.uniform(0.5, 60) if fate < hangs * world.faults.hang else 0.002)
        if fate < hangs * world.faults.hang:
            self.excused += world.timeline.seconds - before
        self.live()
        if world.dice.random() < world.faults.store:
            raise RuntimeError("the database is locked")
        answer = act()
        world.check()
        if world.dice.random() < world.faults.store:
            raise RuntimeError("the connection to the database broke")
        world.after_call(planned)
        self.live(world.faults.crash)
        return answer

    def live(self, chance: float = 0.0) -> None:
        """Dies here, or has died while this call waited."""
        if self._deaths_left and chance and self._world.dice.random() < chance:
            self._deaths_left -= 1
            raise ControllerDied
        if self._dead:
            raise ControllerDied

    # -- what it does

    def run(self, request: MoveRequest) -> None:
        """Until the move has ended; inside another one, that one waits (as a process does that hangs)."""
        self._pending.append(request)
        if self._current:
            try:
                self._go(request)
            except ControllerDied:
                self._dead = True
            return
        while self._pending:
            try:
                self._go(self._pending[0])
            except ControllerDied:
                self.restart()

    def _go(self, request: MoveRequest) -> None:
        world, excused, began = self._world, self.excused, self._world.timeline.seconds
        self._current.append(request.id)
        try:
            report = MoveReport.model_validate_json(workflow.move_shard.__wrapped__(request.model_dump_json()))
            self._world.store.put(report)
            self._pending.remove(request)
        finally:
            self._current.pop()
            took = world.timeline.seconds - began
            self.worked[request.id] = self.worked.get(request.id, 0.0) + took - (self.excused - excused)
            if self._current:
                self.excused = excused + took

    def restart(self) -> None:
        # Sometimes it is the moves only that hang, and the nodes are still answered.
        self.up, self._dead, self._sweeping = self._world.dice.random() < 0.5, False, False
        down = self._world.dice.choice((1.0, 20.0, 200.0)) if self._world.chaos else 1.0
        self.excused += down
        self._down = True
        self._world.timeline.sleep(down)
        self.up, self._down = True, False

    def _sweep(self) -> None:
        self._world.timeline.later(_SWEEP_SECONDS, self._sweep)
        if self._down or self._dead or self._sweeping:
            return
        self._sweeping, before = True, self._world.timeline.seconds
        try:
            sweep(self.context, self._world.store)
        except ControllerDied:
            self._dead = True
        self._sweeping = False
        self.excused += self._world.timeline.seconds - before
        if self._dead and not self._current:
            self.restart()

    def verdict(self, node: NodeId, asked: KeepRequest) -> Verdict:
        if not self.up:
            raise ProviderUnavailable("the control plane is down")
        return keep(self._world.store, node, SHARD, asked)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """What DBOS does: a step that has ended, well or with an error, is not run again when its workflow resumes."""

        def recorded(name: str) -> Callable[..., Any]:
            def run(*arguments: Any) -> Any:
                key = (self._current[-1], name)
                if key not in self._recorded:
                    try:
                        outcome = (True, _ORIGINALS[name](*arguments))
                    except ShardwrightError as problem:
                        outcome = (False, problem)
                    self.live(self._world.faults.crash)
                    self._recorded[key] = outcome
                well, answer = self._recorded[key]
                if not well:
                    raise answer
                return answer

            return run

        workflow.configure(self.context)
        kept = {name: getattr(workflow, name) for name in _STEPS}
        for name in _STEPS:
            setattr(workflow, name, recorded(name))
        try:
            yield
        finally:
            for name, step in kept.items():
                setattr(workflow, name, step)


class Client:
    """As engine.fleet.agent_client.AgentClient: a few attempts, then ProviderUnavailable. The network does the rest."""

    def __init__(self, world: "World", node: NodeId) -> None:
        self._world, self._node = world, world.nodes[node]

    def __getattr__(self, method: str) -> Callable[..., Any]:
        return lambda _shard, *body: self._call(method, body)

    def _call(self, method: str, body: tuple[Any, ...]) -> Any:
        planned = self._world.before_call()
        answer = self._attempts(method, body)
        self._world.after_call(planned)
        return answer

    def _attempts(self, method: str, body: tuple[Any, ...]) -> Any:
        world, faults, node = self._world, self._world.faults, self._node
        if node.name in world.store.gone:
            raise UnknownName(f"node {node.name} is gone")
        for _attempt in range(3):
            world.control.live(faults.crash)
            world.timeline.sleep(0.003)
            if world.cut("control", node.name) or not node.alive or world.dice.random() < faults.lost:
                world.timeline.sleep(world.dice.choice((0.1, 3.0)))
                continue
            fate = world.dice.random()
            if fate < faults.late and method not in _ASKS_ONLY:
                self._again(method, body)
                world.timeline.sleep(15.0)
                break
            if fate < faults.late + faults.twice and method not in _ASKS_ONLY:
                self._again(method, body)
            try:
                answer = self._deliver(node, method, body)
            except Busy:
                self._again(method, body)
                world.timeline.sleep(15.0)
                break
            finally:
                world.check()
            world.timeline.sleep(0.003)
            world.control.live(faults.crash)
            if world.cut(node.name, "control") or world.dice.random() < faults.lost:
                world.timeline.sleep(3.0)
                continue
            return answer
        world.control.live()
        raise ProviderUnavailable(f"node {node.name} does not answer")

    @staticmethod
    def _deliver(node: SimNode, method: str, body: tuple[Any, ...]) -> Any:
        return getattr(node, method)(*body)

    def _again(self, method: str, body: tuple[Any, ...]) -> None:
        """The same message arrives later too, perhaps long after its sender has given up."""
        world, node = self._world, self._node

        def arrive() -> None:
            if not node.alive:
                return
            try:
                self._deliver(node, method, body)
            except ShardwrightError:
                return
            except Busy:
                world.timeline.later(1.0, arrive)

        world.timeline.later(world.dice.choice((0.01, 0.5, 5.0, 30.0, 150.0)) * world.dice.random(), arrive)
