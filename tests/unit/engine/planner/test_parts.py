from collections.abc import Sequence
from decimal import Decimal

import pytest

from engine.model.capacity import Resources, ShardType
from engine.model.ids import PoolId
from engine.model.market import Quote
from engine.planner.inventory import Inventory
from engine.planner.parts import Divided, cheapest_cover, divide, in_parts
from engine.planner.policy import PlanPolicy
from tests.unit.engine.planner.cases import CELLS, NOW, certain, inventory_of, offer, plan_of, pool, quote

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
