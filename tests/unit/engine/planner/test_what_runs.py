"""What running nodes count as: shards of the type that is asked for, in room and in limits."""

import pytest

from engine.model.capacity import Resources, ShardType
from engine.model.market import PurchaseOption, Quote
from engine.model.plan import Plan
from engine.planner.inventory import Inventory
from engine.planner.policy import PlanPolicy
from tests.unit.engine.planner.cases import SMALL, certain, inventory_of, offer, plan_of, pool, quote

LARGE = ShardType(name="cpu.large", resources=Resources(vcpus=2, memory_gib=4))
DISK = ShardType(name="disk.small", resources=Resources(vcpus=1, memory_gib=1), disk_gib=10)
MORE_DISK = DISK.model_copy(update={"name": "disk.large", "disk_gib": 20})
ON_SPOT = quote(offer("spot", "0.02", option=PurchaseOption.SPOT))
TO_KEEP = quote(offer("kept", "0.10"))
solvers = pytest.mark.parametrize("time_limit", [0.0, 5.0])


def slots(made: Plan) -> dict[tuple[str, str], int]:
    found: dict[tuple[str, str], int] = {}
    for slot in (slot for cell in made.cells for node in cell.nodes for slot in node.slots):
        found[slot.pool, slot.shard_type] = found.get((slot.pool, slot.shard_type), 0) + slot.count
    return found


def with_data(made: Plan) -> Inventory:
    return Inventory(nodes=tuple(item.model_copy(update={"holds_data": True}) for item in inventory_of(made).nodes))


@solvers
@pytest.mark.parametrize("sold", [TO_KEEP, ON_SPOT])
def test_a_share_of_the_whole_is_no_limit_on_what_is_needed_beside_what_has_to_stay(
    sold: Quote, time_limit: float
) -> None:
    policy = PlanPolicy(max_provider_share=1.0, max_spot_share=1.0, time_limit_seconds=time_limit)
    first = plan_of([certain(pool("a"), 8)], [sold], policy)
    needs = [certain(pool("a"), 1), certain(pool("b"), 4)]
    made = plan_of(needs, [sold], policy, inventory=with_data(first), parent=first)
    assert {outcome.pool: outcome.planned for outcome in made.pools} == {"a": 8, "b": 4}


@solvers
def test_shards_of_a_pools_former_type_are_replaced_by_as_many_of_its_new_one(time_limit: float) -> None:
    policy = PlanPolicy(time_limit_seconds=time_limit)
    first = plan_of([certain(pool("web", SMALL), 4)], [TO_KEEP], policy)
    changed = [certain(pool("web", LARGE), 4)]
    made = plan_of(changed, [TO_KEEP], policy, inventory=inventory_of(first), parent=first)
    assert slots(made) == {("web", "cpu.large"): 4}
    assert made.leaving == tuple(item.node.id for item in inventory_of(first).nodes)


def test_a_node_that_has_to_stay_with_the_former_type_takes_nothing_new() -> None:
    """Its room is not known: half of it may be free, or none."""
    first = plan_of([certain(pool("web", SMALL), 1)], [TO_KEEP])
    made = plan_of([certain(pool("web", LARGE), 1)], [TO_KEEP], inventory=with_data(first), parent=first)
    assert slots(made) == {("web", "cpu.small"): 1, ("web", "cpu.large"): 1}
    assert len(made.cells[0].nodes) == 2


def test_a_disk_of_another_size_stays_with_the_data_on_it() -> None:
    first = plan_of([certain(pool("disks", DISK), 2)], [TO_KEEP])
    made = plan_of([certain(pool("disks", MORE_DISK), 2)], [TO_KEEP], inventory=with_data(first), parent=first)
    assert made.is_noop


def test_parts_that_are_there_count_as_parts_alone() -> None:
    divided = pool("web", LARGE.part(2))
    first = plan_of([certain(divided, 4)], [TO_KEEP])
    assert slots(plan_of([certain(divided, 4)], [TO_KEEP], inventory=inventory_of(first), parent=first)) == slots(first)
    whole = plan_of([certain(pool("web", LARGE), 2)], [TO_KEEP], inventory=inventory_of(first), parent=first)
    assert slots(whole) == {("web", "cpu.large"): 2}
