"""Spot as records remember it, laid over the steps of a replay: prices by the calendar, depth from availability."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TypeVar

import numpy as np

from lab.case import SpotOffer
from lab.market_files import Kind, Record

FLEET, AREA = "all", "any"
T = TypeVar("T")


@dataclass(frozen=True)
class Clock:
    """``start``: of step 0. Records end where the game ends unless they overlap it."""

    start: datetime
    step: timedelta
    steps: int

    @property
    def end(self) -> datetime:
        return self.start + self.steps * self.step

    def shift(self, record: Record) -> timedelta:
        """How far a record is moved: not at all where it overlaps the game, else so that both end together."""
        begins, ends = _time(record.times[0]), _time(record.times[-1])
        return timedelta(0) if begins < self.end and ends > self.start else self.end - ends

    def at(self, time: datetime) -> int:
        """The step that holds ``time``; negative before the game."""
        return (time - self.start) // self.step


def offer_fields(kind: Kind, suffix: str) -> dict[str, object]:
    return {
        "id": f"{kind.provider}:{kind.region}:{kind.instance_type}:{suffix}",
        "provider": kind.provider,
        "region": kind.region,
        "area": AREA,
        "cell": f"{kind.provider}/{kind.region}",
        "group": kind.group,
        "instance_type": kind.instance_type,
        "vector": {"vcpus": kind.vcpus, "memory_gib": kind.memory_gib},
        "shards_per_unit": {FLEET: kind.shards},
        "lead": 1,
        "min_steps": 1,
        "on_demand_price": kind.on_demand,
    }


def replayed_spot(
    kinds: Sequence[Kind],
    prices: dict[tuple[str, str, str], Record],
    records: Sequence[Record],
    clock: Clock,
    draw: random.Random,
) -> tuple[list[SpotOffer], list[str]]:
    """Spot offers, and notes. One record of availability for each correlation group, since the same family and region
    fail together: one of its own region, else one borrowed from a drawn moment on.
    """
    offers, constant, shifted = [], 0, 0
    depths: dict[str, tuple[tuple[int, int], ...]] = {}
    borrowed = 0
    for kind in kinds:
        record = prices.get(kind.key)
        if record is None and kind.spot is None:
            continue
        if kind.group not in depths:
            own = [each for each in records if each.provider == kind.provider and each.place.startswith(kind.region)]
            borrowed += not own
            depths[kind.group] = _depth(draw.choice(own or list(records)), clock, None if own else draw)
        constant += record is None
        shifted += record is not None and clock.shift(record) != timedelta(0)
        points = ((-1, kind.spot),) if record is None else _price_points(record, clock)
        offers.append(
            SpotOffer(option="spot", prices=points, available=depths[kind.group], **offer_fields(kind, "spot"))  # type: ignore[arg-type]
        )
    notes = [
        (shifted, "spot offers: their price record is of another time; its end stands for the end of the replay"),
        (constant, "spot offers have no price record: the price of the offers file holds throughout"),
        (borrowed, "groups have no record of availability of their own: one was borrowed from another place"),
    ]
    return offers, [f"{count} {words}" for count, words in notes if count]


def _price_points(record: Record, clock: Clock) -> tuple[tuple[int, Decimal], ...]:
    shift = clock.shift(record)
    points: dict[int, Decimal] = {}
    for time, value in zip(record.times, record.values, strict=True):
        step = clock.at(_time(time) + shift)
        if step < clock.steps:
            points[step] = Decimal(str(round(float(value), 6)))
    first = min(points)
    if first >= 0:
        points[-1] = points[first]  # nothing older is known
    return _changes(sorted(points.items()))


def _depth(record: Record, clock: Clock, draw: random.Random | None) -> tuple[tuple[int, int], ...]:
    """The least that could be had within each step; a borrowed record runs in a circle from a drawn moment."""
    begins = _time(record.times[0])
    span = int((_time(record.times[-1]) - begins) / clock.step) + 1
    least = np.full(span, np.inf)
    places = ((record.times - record.times[0]) / np.timedelta64(clock.step)).astype(int)
    np.minimum.at(least, places, record.values)
    known = np.where(np.isfinite(least), least, 0).astype(int)
    if draw is not None:
        offset = draw.randrange(span)
    else:
        offset = round((clock.start - (begins + clock.shift(record))) / clock.step)
    values = [int(known[(offset + step) % span]) for step in range(clock.steps)]
    return _changes(list(enumerate(values)))


def _changes(points: Sequence[tuple[int, T]]) -> tuple[tuple[int, T], ...]:
    return tuple(point for at, point in enumerate(points) if at == 0 or point[1] != points[at - 1][1])


def _time(moment: "np.datetime64") -> datetime:
    return datetime.fromtimestamp(moment.astype("datetime64[us]").astype(int) / 1e6, tz=UTC)
