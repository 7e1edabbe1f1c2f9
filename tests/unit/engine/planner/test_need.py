"""The two curves of a pool's demand."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.planner.need import PoolNeed, read_needs
from engine.planner.policy import PlanPolicy
from tests.unit.engine.planner.cases import CRITICAL, MEMORY, STANDARD, pool, target, target_of_paths

paths = st.lists(st.lists(st.integers(0, 40), min_size=3, max_size=3), min_size=1, max_size=30)


def _need(demand: list[list[int]]) -> PoolNeed:
    return read_needs(PlanPolicy(), [target_of_paths(pool(), demand)]).pools[0]


@given(demand=paths, shards=st.integers(0, 45))
def test_curves_are_what_counting_says(demand: list[list[int]], shards: int) -> None:
    need = _need(demand)
    assert need.covered(shards) == np.mean([max(path) <= shards for path in demand])
    assert np.isclose(need.short(shards), np.mean([max(0, d - shards) for path in demand for d in path]))


@given(demand=paths, shards=st.integers(0, 45))
def test_tangents_never_exceed_the_shortage(demand: list[list[int]], shards: int) -> None:
    need = _need(demand)
    for slope, intercept in need.shortage_tangents():
        assert slope < 0
        assert slope * shards + intercept <= need.short(shards) + 1e-9


@given(demand=paths)
def test_the_tail_ends_in_certainty(demand: list[list[int]]) -> None:
    need = _need(demand)
    assert np.isclose(need.covered(need.desired) + sum(gain for _, gain in need.tail()), 1.0)
    assert need.desired + sum(height for height, _ in need.tail()) == max(need.most, need.desired)


def test_stricter_classes_come_first_and_slices_are_shared() -> None:
    needs = read_needs(
        PlanPolicy(), [target(pool("a")), target(pool("b", MEMORY, CRITICAL)), target(pool("c", MEMORY, STANDARD))]
    )
    assert [need.id for need in needs.pools] == ["b", "a", "c"]
    assert len(needs.shapes) == 2
    assert needs.pools[0].shape == needs.pools[2].shape


def test_the_policy_may_redefine_a_class() -> None:
    strict = STANDARD.model_copy(update={"quantile": 0.999})
    policy = PlanPolicy(risk_classes=(strict,))
    assert read_needs(policy, [target(pool())]).pools[0].risk == strict
