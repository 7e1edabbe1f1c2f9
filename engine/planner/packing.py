"""Slices into units: all four resources at once, and exactly, because a pattern is checked when it is made."""

from collections.abc import Iterator, Sequence
from operator import itemgetter

from engine.model.capacity import Resources

Pattern = tuple[int, ...]
"""How many slices of each shape one unit carries."""

_MOST_ENUMERATED = 400
_MOST_PATTERNS = 24


Room = tuple[float, float, float, float]
"""vCPUs, memory, IOPS, network: what a unit has, or has left."""


def room_of(resources: Resources) -> Room:
    return (resources.vcpus, resources.memory_gib, resources.storage_iops, resources.network_mbps)


def fitting(room: Room, part: Room) -> int:
    """How many such parts fit; as ``Resources.holds``, without the values' cost."""
    return min((int(whole / each + 1e-9) for whole, each in zip(room, part, strict=True) if each > 0), default=0)


def without(room: Room, part: Room, count: int) -> Room:
    vcpus, memory, iops, network = (max(0.0, whole - each * count) for whole, each in zip(room, part, strict=True))
    return (vcpus, memory, iops, network)


def left_over(whole: Resources, shapes: Sequence[Resources], pattern: Sequence[int]) -> Resources | None:
    """What remains of ``whole`` beside the pattern's slices; None where they do not fit."""
    room = list(room_of(whole))
    for shape, count in zip(shapes, pattern, strict=True):
        for axis, part in enumerate(room_of(shape)):
            room[axis] -= part * count
    if any(amount < -1e-9 * max(1.0, whole_amount) for amount, whole_amount in zip(room, room_of(whole), strict=True)):
        return None
    vcpus, memory, iops, network = (max(0.0, amount) for amount in room)
    return Resources(vcpus=vcpus, memory_gib=memory, storage_iops=iops, network_mbps=network)


def patterns(whole: Resources, shapes: Sequence[Resources], wanted: Sequence[bool]) -> tuple[Pattern, ...]:
    """Fillings of one unit to which no further wanted slice can be added.

    All of them where they are few; else those that fill up in the order of every pair of shapes, which contain each
    shape's own maximum. Empty when nothing wanted fits.
    """
    most = [whole.holds(shape) if want else 0 for shape, want in zip(shapes, wanted, strict=True)]
    used = [index for index, count in enumerate(most) if count > 0]
    combinations = 1
    for index in used:
        combinations *= most[index] + 1
    if not used:
        return ()
    if len(used) == 1:
        return (tuple(most),)
    found = _every(whole, shapes, used) if combinations <= _MOST_ENUMERATED else _paired(whole, shapes, used, most)
    return _maximal(found)[:_MOST_PATTERNS]


def _every(whole: Resources, shapes: Sequence[Resources], used: Sequence[int]) -> Iterator[Pattern]:
    """Depth first: as many of the last shape as fit beside every choice of the others."""

    def fill(room: Resources, position: int, counts: list[int]) -> Iterator[Pattern]:
        index = used[position]
        most = room.holds(shapes[index])
        if position == len(used) - 1:
            yield _pattern(len(shapes), used, [*counts, most])
            return
        for count in range(most, -1, -1):
            rest = left_over(room, (shapes[index],), (count,))
            if rest is not None:
                yield from fill(rest, position + 1, [*counts, count])

    return fill(whole, 0, [])


def _paired(
    whole: Resources, shapes: Sequence[Resources], used: Sequence[int], most: Sequence[int]
) -> Iterator[Pattern]:
    for first in used:
        for count in sorted({most[first], (most[first] * 2) // 3, most[first] // 2, most[first] // 3}, reverse=True):
            for second in used:
                if second != first:
                    order = [second, *(index for index in used if index not in (first, second))]
                    yield _filled(whole, shapes, {first: count}, order)


def _filled(whole: Resources, shapes: Sequence[Resources], fixed: dict[int, int], order: Sequence[int]) -> Pattern:
    counts = [fixed.get(index, 0) for index in range(len(shapes))]
    for index in (*order, *fixed):
        room = left_over(whole, shapes, counts)
        if room is not None:
            counts[index] += room.holds(shapes[index])
    return tuple(counts)


def _pattern(length: int, used: Sequence[int], counts: Sequence[int]) -> Pattern:
    by_index = dict(zip(used, counts, strict=True))
    return tuple(by_index.get(index, 0) for index in range(length))


def _maximal(found: Iterator[Pattern]) -> tuple[Pattern, ...]:
    """Without repeats and without patterns that another one contains; the fullest of every shape first."""
    distinct = sorted(set(found), key=lambda pattern: (-max(pattern), tuple(-count for count in pattern)))
    kept = [
        pattern
        for pattern in distinct
        if not any(other != pattern and all(o >= p for o, p in zip(other, pattern, strict=True)) for other in distinct)
    ]
    fullest = [max(kept, key=itemgetter(index)) for index in range(len(kept[0]))]
    return tuple(dict.fromkeys((*fullest, *kept)))
