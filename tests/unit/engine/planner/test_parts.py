from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

import pytest

from engine.clock import ManualClock
from engine.model.capacity import Resources, ShardType
from engine.model.composite import CompositeRule
from engine.model.ids import PoolId, RoundId
from engine.model.market import Offer, OfferQuery, Quote
from engine.model.plan import Plan
from engine.planner.inventory import Inventory
from engine.planner.parts import Divided, cheapest_cover, divide, in_parts
from engine.planner.policy import PlanPolicy
from engine.store.database import Database
from tests.unit.engine.composition.cases import API
from tests.unit.engine.planner.cases import CELLS, NOW, certain, inventory_of, offer, plan_of, pool, quote
from tests.unit.engine.small_round import Seller, SmallRound

BIG = ShardType(name="cpu.large", resources=Resources(vcpus=6, memory_gib=12, storage_iops=6000))
WEB = pool("web", BIG)


def divided(quotes: Sequence[Quote], shards: int = 1, *, most: int = 4, inventory: Inventory | None = None) -> Divided:
    return divide(
        PlanPolicy(), [certain(WEB, shards)], quotes, inventory or Inventory(), {PoolId("web"): most},
        cells=CELLS, now=NOW,
    )  # fmt: skip


def two(price: str = "0.10", quantity: int = 10) -> Quote:
    """2 vCPU, 8 GiB, 3000 IOPS."""
    return quote(offer("two", price), quantity=quantity)


def whole(price: str, quantity: int = 10) -> Quote:
    large = offer("whole", price, vcpus=8, memory=16, instance_type="m7i.2xlarge")
    large = large.model_copy(update={"resources": Resources(vcpus=8, memory_gib=16, storage_iops=6000)})
    return quote(large, quantity=quantity)


def test_a_need_larger_than_every_offer_is_met_by_parts_and_says_so() -> None:
    found = divided([two()], 2)
    assert found.of(PoolId("web")) == 3
    assert found.parts[0].reason == (
        "met by 3 parts of 2 vCPU, 4 GiB, 2000 IOPS each: no offer holds 2 whole: 6 vCPU, 12 GiB, 6000 IOPS each"
    )
    (target,) = found.targets
    assert (target.desired, target.pool.shard_type.name) == (6, "cpu.large.p3")
    plan = plan_of(found.targets, [two()])
    assert sum(slot.count for cell in plan.cells for node in cell.nodes for slot in node.slots) >= 6


def test_it_is_whole_where_that_is_cheaper_and_in_parts_where_those_are() -> None:
    assert divided([two("0.10"), whole("0.29")]).parts == ()
    assert divided([two("0.10"), whole("0.30")]).parts == ()
    assert divided([two("0.09"), whole("0.30")]).of(PoolId("web")) == 3
    assert "0.2700 per hour against 0.3000 in one piece each" in divided([two("0.09"), whole("0.30")]).parts[0].reason


def test_nothing_is_divided_that_may_not_be() -> None:
    target = certain(WEB, 1)
    assert divided([two()], most=1) == Divided(targets=(target,))
    assert divided([two()], most=2) == Divided(targets=(target,))  # halves are too large as well


def test_how_many_there_are_counts() -> None:
    assert divided([two("0.09", quantity=2), whole("0.30")]).parts == ()
    assert divided([two("0.09", quantity=3), whole("0.30")]).of(PoolId("web")) == 3


def test_what_is_divided_stays_so_while_it_has_shards() -> None:
    found = divided([two()])
    inventory = inventory_of(plan_of(found.targets, [two()]))
    again = divided([two("0.10"), whole("0.01")], inventory=inventory)
    assert again.of(PoolId("web")) == 3
    assert again.parts[0].reason.endswith("as what is there already")
    entire = inventory_of(plan_of([certain(WEB, 1)], [whole("0.30")]))
    assert divided([two("0.01"), whole("0.30")], inventory=entire).parts == ()


def test_what_is_divided_stays_so_where_its_components_no_longer_allow_it() -> None:
    enough = two(quantity=20)
    first = divided([enough], 4)
    assert first.of(PoolId("web")) == 3
    inventory = inventory_of(plan_of(first.targets, [enough]))
    for most in (1, 2):
        again = divided([enough], 4, most=most, inventory=inventory)
        assert again.of(PoolId("web")) == 3
        made = plan_of(again.targets, [enough], inventory=inventory)
        assert made.is_noop, "all twelve parts are needed still"


def test_parts_of_another_type_say_nothing_of_a_pools_own() -> None:
    other = WEB.model_copy(update={"shard_type": BIG.model_copy(update={"name": "cpu.huge"})})
    inventory = inventory_of(plan_of([in_parts(certain(other, 1), 3)], [two()]))
    assert divided([whole("0.01")], inventory=inventory).parts == ()


def test_a_type_knows_its_parts_by_name() -> None:
    assert [BIG.divided_into(BIG.part(parts).name) for parts in (1, 2, 16)] == [1, 2, 16]
    assert [BIG.divided_into(name) for name in ("cpu.huge", "cpu.huge.p2", "cpu.large.p", "cpu.large.px")] == [None] * 4


def test_parts_are_together_no_less_than_the_whole() -> None:
    odd = ShardType(name="cpu.odd", resources=Resources(vcpus=5, memory_gib=1.0, storage_iops=100))
    for parts in range(1, 17):
        part = odd.part(parts).resources
        assert part.memory_gib * parts >= 1.0
        assert part.vcpus * parts == pytest.approx(5)
        assert part.storage_iops * parts == pytest.approx(100)
    assert odd.part(1) is odd


def test_a_target_in_parts_asks_for_so_many_times_as_much() -> None:
    target = in_parts(certain(WEB, 2), 3)
    assert (target.desired, target.demand_paths) == (6, ((6,),))
    assert target.steps[0].shards_by_quantile == ((0.5, 6),)


def test_the_cheapest_cover() -> None:
    assert cheapest_cover([(1, Decimal(3), 9), (4, Decimal(8), 9)], 5) == Decimal(11)
    assert cheapest_cover([(1, Decimal(3), 1), (4, Decimal(8), 9)], 6) == Decimal(16)
    assert cheapest_cover([(4, Decimal(8), 1)], 5) is None
    assert cheapest_cover([], 0) == Decimal(0)
    assert cheapest_cover([(0, Decimal(1), 5)], 1) is None


LARGE = pool("web", ShardType(name="cpu.large", resources=Resources(vcpus=6, memory_gib=12)))
ROUND = RoundId("r1")


class Shop(Seller):
    """Shows only what is as large as what it is asked for."""

    def offers(self, need: OfferQuery) -> tuple[Offer, ...]:  # type: ignore[override]
        return tuple(one for one in super().offers(need) if one.resources.holds(need.at_least) > 0)


def decided(database: Database, clock: ManualClock, max_parts: int) -> tuple[Plan, SmallRound]:
    small = offer("harbor-1", "0.05", cell=CELLS[3]).model_copy(update={"available": 20})
    world = SmallRound(database, clock, LARGE, Shop("harbor", clock, small))
    composition = replace(
        world.steps.composition,
        pools=(LARGE,),
        components={PoolId("web"): (API,)},
        rules={API: CompositeRule(max_parts=max_parts)},
    )
    steps = replace(world.steps, composition=composition)
    world.demand.now = (certain(LARGE, 2),)
    targets = steps.forecast(ROUND)
    view = steps.discover(targets)
    return steps.decide(targets, view, steps.negotiate(ROUND, targets, view), ()), world


def test_a_need_that_no_offer_holds_is_discovered_quoted_and_planned_in_parts(
    database: Database, clock: ManualClock
) -> None:
    plan, world = decided(database, clock, 4)
    (parts,) = plan.parts
    assert (parts.parts, plan.parts_of(PoolId("web"))) == (3, 3)
    assert any(line.startswith("decide: web: met by 3 parts of 2 vCPU, 4 GiB each: no offer") for line in world.said)
    slots = [slot for cell in plan.cells for node in cell.nodes for slot in node.slots]
    assert {slot.shard_type for slot in slots} == {"cpu.large.p3"}
    assert sum(slot.count for slot in slots) == 6
    assert Plan.model_validate_json(plan.model_dump_json()) == plan
