from datetime import timedelta

from engine.composition.minimum import at_least, constant, least_shards
from engine.model.composite import CompositeRule
from engine.model.ids import PoolId
from tests.unit.engine.composition.cases import API, NOW, WEB
from tests.unit.engine.planner.cases import pool, target_of_paths

DISKS = PoolId("disks")


def test_a_target_is_lifted_and_never_lowered() -> None:
    low = target_of_paths(pool("web"), [[1, 3], [0, 2]])
    lifted = at_least(low, 2)
    assert lifted.demand_paths == ((2, 3), (2, 2))
    assert (lifted.desired, at_least(low, 5).desired) == (3, 5)
    assert all(number >= 2 for step in lifted.steps for _, number in step.shards_by_quantile)
    assert at_least(low, 0) is low


def test_what_replicas_need_whatever_the_usage_says() -> None:
    rules = {API: CompositeRule(replicas=3, storage=DISKS)}
    assert least_shards({WEB: [API]}, rules) == {WEB: 3, DISKS: 3}
    assert least_shards({WEB: [API]}, {}) == {}


def test_a_constant_demand_is_certain() -> None:
    found = constant(pool("disks"), 2, step=timedelta(hours=1), steps=3, now=NOW)
    assert (found.desired, found.demand_paths) == (2, ((2, 2, 2),))
    assert [step.start for step in found.steps] == [NOW + timedelta(hours=n) for n in range(3)]
