"""A fitting offer is found behind any number of cheaper ones that do not fit: from the market to the plan."""

from dataclasses import replace
from typing import Any

import pytest

from engine.clock import ManualClock
from engine.model.capacity import CapacityTarget, Placement, Resources, ShardType
from engine.model.ids import PoolId, RoundId
from engine.model.market import Offer, PurchaseOption
from engine.model.plan import Plan
from engine.planner.policy import PlanPolicy
from engine.planner.uses import uses_of
from engine.store.database import Database
from tests.unit.engine.planner.cases import CELLS, certain, offer, pool
from tests.unit.engine.small_round import Seller, SmallRound

AWS = CELLS[0]
ROUND = RoundId("r1")
LEAN = ShardType(name="cpu.lean", resources=Resources(vcpus=1, memory_gib=2))
LARGE = ShardType(name="memory.large", resources=Resources(vcpus=1, memory_gib=8))


def many(kind: str, price: str, **fields: Any) -> list[Offer]:
    """Nine types of one family, in two zones each."""
    found = []
    for size in range(9):
        of = offer(f"{kind}-{size}", price, cell=AWS, instance_type=f"{kind}.{size}x", **fields)
        other = {"id": f"{of.id}-b", "zone": f"{AWS.region}-b"}
        found += [of, of.model_copy(update=other)]
    return found


class Round:
    def __init__(self, database: Database, clock: ManualClock, offers: list[Offer], policy: PlanPolicy) -> None:
        self.seller = Seller("aws", clock, *offers)
        world = SmallRound(database, clock, pool(), self.seller)
        self.steps = replace(world.steps, terms=replace(world.steps.terms, policy=policy))

    def plan(self, *targets: CapacityTarget) -> Plan:
        view = self.steps.discover(targets)
        return self.steps.decide(targets, view, self.steps.negotiate(ROUND, targets, view), ())


def bought(plan: Plan) -> set[str]:
    return {planned.node.instance_type.split(".")[0] for cell in plan.cells for planned in cell.nodes if planned.quote}


@pytest.mark.parametrize("option", [PurchaseOption.ON_DEMAND, PurchaseOption.SPOT])
def test_a_family_that_is_not_allowed_hides_none_that_is(
    database: Database, clock: ManualClock, option: PurchaseOption
) -> None:
    offers = [*many("t4g", "0.01", option=option), *many("m7i", "0.05", option=option)]
    one = Round(database, clock, offers, PlanPolicy(instance_families=("m7i",)))
    assert bought(one.plan(certain(pool("web", LEAN), 2))) == {"m7i"}
    assert {name[:3] for name, _ in one.seller.asked} == {"m7i"}, "nobody is asked for what may not be bought"


def test_what_is_too_slow_hides_nothing_that_is_fast_enough(database: Database, clock: ManualClock) -> None:
    offers = [*many("t4g", "0.01", performance=0.5), *many("m7i", "0.05", performance=1.1)]
    fast = LEAN.model_copy(update={"name": "cpu.fast", "min_performance": 0.9})
    one = Round(database, clock, offers, PlanPolicy())
    assert bought(one.plan(certain(pool("web", fast), 2))) == {"m7i"}


def test_a_pool_that_wants_memory_is_not_forgotten_beside_one_that_wants_none(
    database: Database, clock: ManualClock
) -> None:
    offers = [*many("c7i", "0.01", vcpus=2, memory=4), *many("r7i", "0.05", vcpus=2, memory=16)]
    one = Round(database, clock, offers, PlanPolicy())
    plan = one.plan(certain(pool("web", LEAN), 2), certain(pool("cache", LARGE), 2))
    assert bought(plan) >= {"r7i"}
    assert len(one.seller.asked) == len(set(one.seller.asked)) <= 12, "six of each"


def test_pools_that_are_alike_to_an_offer_are_one_use() -> None:
    here = Placement(providers=("aws",))
    targets = [certain(pool(name, LEAN), 1) for name in ("web", "api")] + [
        certain(pool("near", LEAN, placement=here), 1),
        certain(pool("cache", LARGE), 1),
    ]
    uses = uses_of(PlanPolicy(), targets, {}, CELLS)

    def memory(of: Offer) -> list[float]:
        return sorted(use.slice.memory_gib for use in uses(of))

    assert memory(offer("a", "0.05")) == [2, 2, 8]
    assert memory(offer("g", "0.05", cell=CELLS[1])) == [2, 8]
    assert memory(offer("s", "0.05", memory=4)) == [2, 2]
    assert uses(offer("a", "0.05", memory=8)) == uses(offer("b", "0.07", memory=16))


def test_a_pool_that_may_be_divided_is_of_use_whole_and_in_parts() -> None:
    uses = uses_of(PlanPolicy(), [certain(pool("web", LARGE), 1)], {PoolId("web"): 4}, CELLS)
    assert [use.slice.memory_gib for use in uses(offer("a", "0.05", memory=8))] == [8, 2]
    assert [use.slice.memory_gib for use in uses(offer("s", "0.05", memory=4))] == [2]
    assert list(uses(offer("t", "0.05", memory=1))) == []
