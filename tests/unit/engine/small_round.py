"""Rounds on a real store, with sellers, cells and nodes that do as they are told; nothing is booted."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, cast

from engine.allocation.holds import PlanHolds
from engine.allocation.locking import ResourceLocking
from engine.cell_updates import Judgement
from engine.clock import ManualClock
from engine.composition.composition import Composition
from engine.composition.leaving import Drains
from engine.composition.storage import Storage
from engine.errors import InsufficientCapacity
from engine.events import Event
from engine.market.strategies import open_strategies
from engine.market_watch import MarketWatch
from engine.model.capacity import CapacityTarget, Pool
from engine.model.ids import HoldId, NodeId, QuoteId, ReservationId, ShardId
from engine.model.market import Hold, Offer, Quote, Reservation
from engine.model.placement import Node, NodeState, Shard
from engine.model.plan import CellPlan, Plan, PlannedNode
from engine.model.value import Interval
from engine.planner.policy import PlanPolicy
from engine.reconcile import CellFailure, CellResult
from engine.steps import ControlSteps, Terms
from engine.store.attachments import Attachments
from engine.store.database import Database
from engine.store.market_memory import MarketMemory
from engine.store.moves import MoveHistory
from engine.store.plans import PlanStore
from engine.store.round_records import RoundRecords
from engine.store.shard_health import HealthBook
from engine.store.shard_map import ShardMap
from stacks.base import CellOutcome, ResourceChanges
from tests.unit.engine.planner.cases import CELLS


class Cells:
    """Brings every node of the plan up, but those of ``failing`` providers and those that a cell has no room for."""

    def __init__(self) -> None:
        self.plans: list[Plan] = []
        self.failing: set[str] = set()
        self.room: dict[str, int] = {}
        """By provider, how many nodes it creates; any number where it is not named."""
        self.asked: list[NodeId] = []
        """Nodes whose creation was tried, each time it was."""
        self._made: set[NodeId] = set()

    def judge(self, plan: Plan, user_data: Mapping[NodeId, str]) -> Judgement:
        return Judgement(findings=())

    def run(self, plan: Plan, user_data: Mapping[NodeId, str]) -> tuple[CellResult, ...]:
        self.plans.append(plan)
        return tuple(self._result(plan, number) for number in range(len(plan.cells)))

    def _result(self, plan: Plan, number: int) -> CellResult:
        cell = plan.cells[number]
        provider = cell.cell.provider
        if provider in self.failing:
            return CellFailure(cell=cell.cell, generation=plan.generation, kind="ProviderError", what="down")
        new = [planned.node.id for planned in cell.nodes if planned.node.id not in self._made]
        self.asked += new
        there = self.room.get(provider, len(self._made) + len(new))
        kept = [planned for planned in cell.nodes if planned.node.id in self._made]
        granted, denied = new[: max(0, there - len(kept))], new[max(0, there - len(kept)) :]
        self._made.update(granted)
        if denied:
            error = InsufficientCapacity(f"{cell.cell.id}: the update failed", nodes=tuple(denied))
            return CellFailure.of(cell, error).model_copy(update={"nodes": self._instances(cell)})
        nodes = self._instances(cell)
        return CellOutcome(cell=cell.cell, generation=plan.generation, changes=ResourceChanges(), nodes=nodes)

    def _instances(self, cell: CellPlan) -> tuple[tuple[NodeId, str], ...]:
        there = (planned.node.id for planned in cell.nodes if planned.node.id in self._made)
        return tuple((node, f"i-{node}") for node in there)

    @property
    def last(self) -> dict[NodeId, PlannedNode]:
        return {planned.node.id: planned for cell in self.plans[-1].cells for planned in cell.nodes}


class Fleet:
    """Knows nodes, has no agents."""

    def __init__(self, shard_map: ShardMap) -> None:
        self._map = shard_map
        self.released: list[ShardId] = []

    def expect(self, node: Any) -> None:
        if node.id not in {known.id for known in self._map.nodes()}:
            self._map.put_node(node)

    def user_data(self, plan: Plan) -> Mapping[NodeId, str]:
        return {}

    def wait_joined(self, planned: Iterable[PlannedNode]) -> tuple[Node, ...]:
        wanted = {one.node.id for one in planned}
        return tuple(node for node in self._map.nodes(states=[NodeState.JOINED]) if node.id in wanted)

    def carve_all(self, shards: Sequence[Shard]) -> tuple[()]:
        return ()

    def release(self, shard: Shard) -> None:
        self.released.append(shard.id)
        self._map.remove(shard.id)


class Seller:
    """Quotes what it posts; keeps no holds."""

    def __init__(self, name: str, clock: ManualClock, *offers: Offer) -> None:
        self.name, self._clock, self.posted = name, clock, offers
        self.asked: list[tuple[str, int]] = []

    def offers(self, need: object) -> tuple[Offer, ...]:
        return tuple(offer.model_copy(update={"price_at": self._clock.now()}) for offer in self.posted)

    def quote(self, offer: Offer, quantity: int, term: Interval) -> Quote:
        self.asked.append((offer.id, quantity))
        return Quote(
            id=QuoteId(f"q-{offer.id}-{self._clock.now():%H%M}"), offer=offer, quantity=quantity,
            unit_price=offer.price, price_ceiling=offer.price, term=term,
            expires_at=self._clock.now() + timedelta(minutes=10), strategy="",
        )  # fmt: skip


class HoldingSeller(Seller):
    """Has ``room`` units, however many it posts, and says so only when they are to be held."""

    def __init__(self, name: str, clock: ManualClock, *offers: Offer, room: int) -> None:
        super().__init__(name, clock, *offers)
        self.room = room
        self.held: set[str] = set()
        self.hold_asked: set[str] = set()
        """Keys: a hold whose answer may have been lost is asked for again to be given back."""

    def hold(self, quote: Quote, *, key: str) -> Hold:
        self.hold_asked.add(key)
        if key not in self.held and len(self.held) >= self.room:
            raise InsufficientCapacity(f"{self.name}: none left")
        self.held.add(key)
        expires_at = self._clock.now() + timedelta(minutes=3)
        return Hold(id=HoldId(key), key=key, quote=quote, expires_at=expires_at, provider_reference=key)

    def confirm(self, hold: Hold) -> Reservation:
        return Reservation(id=ReservationId(hold.id), hold_id=hold.id, quote=hold.quote, confirmed_at=self._clock.now())

    def release(self, hold_id: str) -> None:
        self.held.discard(hold_id)


def no_composites(database: Database, clock: ManualClock, shard_map: ShardMap, fleet: "Fleet") -> Composition:
    """No component asks for anything."""
    storage = Storage(shard_map, Attachments(database), cast(Any, None), {})
    return Composition(
        pools=(), components={}, rules={}, shard_map=shard_map, health=HealthBook(database, clock),
        drains=Drains(shard_map, {}, clock, fleet), storage=storage, fleet=fleet, clock=clock,
        observe=lambda _event: None, listening_since=clock.now(),
    )  # fmt: skip


class NoMoves:
    """No shard is ever bound here, so none has to move."""

    def run(self, requests: Sequence[object]) -> tuple[()]:
        assert not requests
        return ()


class Demanded:
    """As many shards as it is told."""

    def __init__(self, *targets: CapacityTarget) -> None:
        self.now = targets

    def targets(self) -> tuple[CapacityTarget, ...]:
        return self.now


class SmallRound:
    """``steps`` on a real store; ``said`` is what they told."""

    def __init__(self, database: Database, clock: ManualClock, pool: Pool, *sellers: Seller) -> None:
        self.clock, self.cells, self.demand = clock, Cells(), Demanded()
        self.map, self.plans = ShardMap(database, clock), PlanStore(database)
        self.records, self.memory = RoundRecords(database), MarketMemory(database)
        self.fleet = Fleet(self.map)
        self.said: list[str] = []
        providers = {seller.name: seller for seller in sellers}
        self.holds = PlanHolds(ResourceLocking(database, clock), cast(Any, providers))
        self.watch = MarketWatch(self.memory, self.map, self.plans, clock)
        terms = Terms(policy=PlanPolicy(), pools=(pool,), cells=CELLS, term=timedelta(hours=24), seed=1)
        self.steps = ControlSteps(
            terms=terms, demand=self.demand, providers=cast(Any, providers), strategies=open_strategies(),
            shard_map=self.map, plans=self.plans, records=self.records, holds=self.holds,
            updates=cast(Any, self.cells),
            composition=no_composites(database, clock, self.map, self.fleet),
            fleet=cast(Any, self.fleet), moves=cast(Any, NoMoves()), watch=self.watch,
            moving=MoveHistory(database).moving, clock=clock, observe=self._listen,
        )  # fmt: skip

    def _listen(self, event: Event) -> None:
        self.said.append(f"{event.step}: {event.text}")
