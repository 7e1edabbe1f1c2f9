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


@given(sizes, sizes, st.integers(min_value=1, max_value=50))
def test_n_slices_fit_into_n_times_the_slice(vcpus: float, memory: float, n: int) -> None:
    slice_ = Resources(vcpus=vcpus, memory_gib=memory)
    assert Resources(vcpus=vcpus * n, memory_gib=memory * n).holds(slice_) == n


def test_an_empty_placement_allows_everything() -> None:
    assert Placement().allows("aws", "us-east-1")
    assert not Placement(providers=("gcp",)).allows("aws", "us-east-1")
    assert not Placement(regions=("eu-west-1",)).allows("aws", "us-east-1")


def test_a_naive_time_is_refused() -> None:
    with pytest.raises(ValueError, match="zone"):
        Interval(start=datetime(2026, 1, 1), end=datetime(2026, 1, 2))  # noqa: DTZ001
