from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.model.capacity import Placement, Resources
from engine.model.value import Interval

sizes = st.floats(min_value=0.1, max_value=1000)


def test_a_unit_holds_the_scarcest_resources_share() -> None:
    unit = Resources(vcpus=4, memory_gib=8, storage_iops=900, network_mbps=1000)
    assert unit.holds(Resources(vcpus=1, memory_gib=1, storage_iops=300, network_mbps=100)) == 3
    assert unit.holds(Resources(vcpus=1, memory_gib=1)) == 4
    assert unit.holds(Resources(vcpus=8, memory_gib=1)) == 0


def test_a_slice_without_needs_fits_no_number_of_times() -> None:
    assert Resources(vcpus=4, memory_gib=8).holds(Resources(vcpus=0, memory_gib=0)) == 0


@pytest.mark.parametrize(
    ("node", "wanted", "lacks"),
    [
        ({}, {"vcpus": 2}, ()),
        ({}, {"vcpus": 3}, ("vcpus",)),
        ({}, {"storage_iops": 400, "network_mbps": 100}, ()),  # nothing is known, so nothing is refused
        ({"storage_iops": 500}, {"storage_iops": 300}, ()),
        ({"storage_iops": 500}, {"storage_iops": 301}, ("storage_iops",)),
        ({"storage_iops": 100}, {"vcpus": 1}, ()),  # what is there exceeds it; more is not asked for
        ({"vcpus": 0}, {"vcpus": 1}, ("vcpus",)),
    ],
)
def test_what_a_node_lacks_beside_what_is_there(
    node: dict[str, float], wanted: dict[str, float], lacks: tuple[str, ...]
) -> None:
    there = Resources(vcpus=2, memory_gib=4, storage_iops=200)
    nothing = {"vcpus": 0.0, "memory_gib": 0.0}
    assert (
        Resources(**{"vcpus": 4.0, "memory_gib": 8.0} | node).short_of(Resources(**nothing | wanted), [there]) == lacks
    )


@given(sizes, sizes, st.integers(min_value=1, max_value=50))
def test_n_slices_fit_into_n_times_the_slice(vcpus: float, memory: float, n: int) -> None:
    slice_ = Resources(vcpus=vcpus, memory_gib=memory)
    assert Resources(vcpus=vcpus * n, memory_gib=memory * n).holds(slice_) == n


def test_what_is_there_together_is_the_sum_of_each_resource() -> None:
    one = Resources(vcpus=1, memory_gib=2, storage_iops=100, network_mbps=5)
    assert Resources.total([one, Resources(vcpus=0.5, memory_gib=1)]) == Resources(
        vcpus=1.5, memory_gib=3, storage_iops=100, network_mbps=5
    )
    assert Resources.total(()) == Resources(vcpus=0, memory_gib=0)


def test_what_each_of_several_holds_is_the_least_of_each_resource() -> None:
    one = Resources(vcpus=1, memory_gib=2, storage_iops=100, network_mbps=5)
    other = Resources(vcpus=0.5, memory_gib=8)
    assert Resources.least([one, other]) == Resources(vcpus=0.5, memory_gib=2)
    assert Resources.least(()) == Resources(vcpus=0, memory_gib=0)


def test_an_empty_placement_allows_everything() -> None:
    assert Placement().allows("aws", "us-east-1")
    assert not Placement(providers=("gcp",)).allows("aws", "us-east-1")
    assert not Placement(regions=("eu-west-1",)).allows("aws", "us-east-1")


def test_a_naive_time_is_refused() -> None:
    with pytest.raises(ValueError, match="zone"):
        Interval(start=datetime(2026, 1, 1), end=datetime(2026, 1, 2))  # noqa: DTZ001
