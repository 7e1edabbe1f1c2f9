"""The steps of a round on a real store, between parts that do as they are told."""

from datetime import timedelta
from typing import Any, cast

from engine.allocation.holds import PlanHolds
from engine.allocation.locking import ResourceLocking
from engine.clock import ManualClock
from engine.errors import NotFound, ProviderUnavailable
from engine.events import unseen
from engine.market_watch import MarketWatch
from engine.model.capacity import Resources
from engine.model.ids import NodeId, PoolId, ShardId
from engine.model.market import Hold, Quote, Reservation
from engine.model.move import MoveRequest
from engine.model.placement import ShardState
from engine.model.plan import Plan
from engine.planner.policy import PlanPolicy
from engine.steps import ControlSteps, Terms
from engine.store.database import Database
from engine.store.market_memory import MarketMemory
from engine.store.plans import PlanStore
from engine.store.shard_map import ShardMap
from tests.unit.engine.planner.cases import CELLS, certain, inventory_of, offer, plan_of, pool, quote
from tests.unit.engine.small_round import Cells, Fleet, no_composites

WEB = pool()


class Harbor:
    """Knows holds."""

    name = "harbor"

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self.held: set[str] = set()
        self.paid: set[str] = set()
        self.down = False
        self.problem: Exception = ProviderUnavailable("harbor is down")
        """What it is while it is down."""

    def offers(self, need: object) -> tuple[()]:
        return ()

    def quote(self, offer: object, quantity: int, term: object) -> Quote:
        raise AssertionError("not asked here")

    def hold(self, quote: Quote, *, key: str) -> Hold:
        self.held.add(f"h-{key}")
        expires_at = self._clock.now() + timedelta(minutes=3)
        return Hold(id=f"h-{key}", key=key, quote=quote, expires_at=expires_at, provider_reference=f"h-{key}")  # type: ignore[arg-type]

    def confirm(self, hold: Hold) -> Reservation:
        if self.down:
            raise self.problem
        if hold.provider_reference not in self.held:
            raise NotFound(f"no hold {hold.provider_reference}")
        self.paid.add(str(hold.provider_reference))
        return cast(Reservation, None)

    def release(self, hold_id: str) -> None:
        if self.down:
            raise self.problem
        self.held.discard(hold_id)
        self.paid.discard(hold_id)


class World:
    """Nodes bought at harbor, which knows holds, and at aws, which does not."""

    def __init__(self, database: Database, clock: ManualClock) -> None:
        self.cells, self.harbor = Cells(), Harbor(clock)
        self.moving: list[MoveRequest] = []
        self.map, self.plans = ShardMap(database, clock), PlanStore(database)
        self.fleet = Fleet(self.map)
        self.holds = PlanHolds(ResourceLocking(database, clock), {"harbor": self.harbor})
        terms = Terms(policy=PlanPolicy(), pools=(WEB,), cells=CELLS, term=timedelta(hours=24), seed=1)
        self.steps = ControlSteps(
            terms=terms, demand=cast(Any, None), providers={}, strategies=(), shard_map=self.map, plans=self.plans,
            records=cast(Any, None), holds=self.holds, updates=cast(Any, self.cells), fleet=cast(Any, self.fleet),
            moves=cast(Any, None), moving=lambda: self.moving, clock=clock, observe=unseen,
            watch=MarketWatch(MarketMemory(database), self.map, self.plans, clock),
            composition=no_composites(database, clock, self.map, self.fleet),
        )  # fmt: skip
        quotes = [quote(offer("harbor-1", "0.05", cell=CELLS[3])), quote(offer("aws-1", "0.06"))]
        self.plan: Plan = plan_of([certain(WEB, 4)], quotes, PlanPolicy(max_provider_share=0.5))
        self.bought = {planned.node.id: planned for cell in self.plan.cells for planned in cell.nodes}

    def buy(self) -> None:
        self.holds.hold_all(self.plan)
        self.plans.make_target(self.plan)
        self.holds.confirm_all(self.plan)

    def keeping(self, *leaving: NodeId) -> Plan:
        """The plan after, which keeps every node but those."""
        inventory = inventory_of(self.plan)
        kept = plan_of([certain(WEB, 4)], [], PlanPolicy(), inventory=inventory, parent=self.plan)
        cells = tuple(
            cell.model_copy(update={"nodes": tuple(one for one in cell.nodes if one.node.id not in leaving)})
            for cell in kept.cells
        )
        return cast(Plan, kept.model_copy(update={"cells": cells, "leaving": leaving}))

    def shrink(self, plan: Plan) -> None:
        """As a round does, in two steps."""
        self.steps.shrink(plan, self.steps.to_close(plan))

    def bind(self, node: NodeId) -> ShardId:
        return self.add(node, ShardState.BOUND)

    def add(self, node: NodeId, state: ShardState, shard_type: str = "cpu.small") -> ShardId:
        shard = self.map.add_shard(
            ShardId(f"{node}-s{len(self.map.search(node=node))}"), shard_type=shard_type, pool=PoolId("web"), node=node,
            nominal=Resources(vcpus=1, memory_gib=1), state=state,
        )  # fmt: skip
        return shard.id


def node_of(world: World, provider: str) -> NodeId:
    return next(name for name, planned in world.bought.items() if planned.node.cell.startswith(f"{provider}/"))
