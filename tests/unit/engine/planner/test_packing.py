"""Patterns fit, are maximal, and where they are all there, none is missing."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.model.capacity import Resources
from engine.planner.packing import left_over, patterns

SMALL = Resources(vcpus=1, memory_gib=1)
MEMORY = Resources(vcpus=1, memory_gib=6)
DISK = Resources(vcpus=0.5, memory_gib=0.5, storage_iops=1000)


def _fits(whole: Resources, shapes: list[Resources], counts: tuple[int, ...]) -> bool:
    return all(
        sum(getattr(shape, axis) * count for shape, count in zip(shapes, counts, strict=True))
        <= getattr(whole, axis) + 1e-9
        for axis in ("vcpus", "memory_gib", "storage_iops", "network_mbps")
    )


def test_one_shape_has_one_filling() -> None:
    assert patterns(Resources(vcpus=4, memory_gib=8), [SMALL], [True]) == ((4,),)


def test_mixes_use_what_the_other_leaves() -> None:
    """Memory is the limit for one shape and cores for the other: together they fill both."""
    found = patterns(Resources(vcpus=4, memory_gib=14), [SMALL, MEMORY], [True, True])
    assert set(found) == {(4, 0), (3, 1), (2, 2)}


def test_unwanted_shapes_take_no_room() -> None:
    assert patterns(Resources(vcpus=4, memory_gib=14), [SMALL, MEMORY], [True, False]) == ((4, 0),)
    assert patterns(Resources(vcpus=0.5, memory_gib=14), [SMALL, MEMORY], [True, True]) == ()


def test_many_shapes_still_contain_every_own_maximum() -> None:
    shapes = [Resources(vcpus=1 + i / 4, memory_gib=1 + i) for i in range(6)]
    whole = Resources(vcpus=64, memory_gib=256)
    found = patterns(whole, shapes, [True] * 6)
    assert 0 < len(found) <= 24
    for index, shape in enumerate(shapes):
        assert any(pattern[index] == whole.holds(shape) for pattern in found)
    assert all(_fits(whole, shapes, pattern) for pattern in found)


@pytest.mark.parametrize("counts", [(1, 0), (2, 2), (3, 1)])
def test_left_over(counts: tuple[int, int]) -> None:
    room = left_over(Resources(vcpus=4, memory_gib=14), [SMALL, MEMORY], counts)
    assert room == Resources(vcpus=4 - sum(counts), memory_gib=14 - counts[0] - 6 * counts[1])
    assert left_over(Resources(vcpus=4, memory_gib=14), [SMALL, MEMORY], (0, 3)) is None


@given(vcpus=st.integers(1, 8), memory=st.integers(1, 32), iops=st.sampled_from([0, 1000, 3000]))
def test_every_filling_is_covered_by_a_pattern(vcpus: int, memory: int, iops: int) -> None:
    whole = Resources(vcpus=vcpus, memory_gib=memory, storage_iops=iops)
    shapes = [SMALL, MEMORY, DISK]
    found = patterns(whole, shapes, [True] * 3)
    assert all(_fits(whole, shapes, pattern) for pattern in found)
    if len(found) == 24:
        return
    for counts in product(range(9), range(6), range(4)):
        if _fits(whole, shapes, counts):
            assert any(all(p >= c for p, c in zip(pattern, counts, strict=True)) for pattern in found) or not any(
                counts
            )
