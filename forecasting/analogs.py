"""A few steps ahead by analogy: what followed the moments of the past that looked most like now.

For one to a few steps this is sharper in the tail than a model that was trained for a day ahead, it needs no training,
and it learns from each new step at once. Two views of likeness are averaged: one looks at the last values most, the
other at the time of day and the recent mean as well; both trust what happened within the last days more.
Weights and neighbourhoods were chosen on the demand of the capacity game's development cases; see
docs/design/0014-rolling-planner.md.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from forecasting.base import Array

FEATURES = ("last", "second", "third", "day", "week", "quarter_mean", "day_mean", "sine", "cosine")
PATHS = 200
LEVELS = (np.arange(PATHS) + 0.5) / PATHS
SHORTEST = 8
"""Values from which on there is a past to compare with, whatever the step."""
ROOM = 512
"""Steps by which the memory of a panel grows."""


@dataclass(frozen=True)
class View:
    """How alike two moments are: squared distance of weighted features; a neighbour counts by exp(-distance / that of
    the ``near``-th nearest) + ``floor``, times exp(-age / ``memory_days``)."""

    weights: tuple[float, ...]
    neighbours: int
    near: int
    floor: float
    memory_days: float
    level: bool = False


SHARP = (
    View((6.19, 4.04, 2.29, 0.89, 0.08, 2.76, 1.17, 1.47, 1.47), 16, 1, 3e-5, 5.0),
    View((2.91, 1.73, 0.83, 0.39, 0.38, 1.36, 0.22, 1.33, 1.33), 15, 1, 2.3e-3, 5.0),
)
WIDE = (
    *SHARP,
    View((0.3, 0.0, 0.0, 0.0, 0.0, 0.3, 0.3, 0.2, 0.2), 300, 150, 0.3, 4.0, level=True),
    View((0.5, 0.0, 0.0, 0.5, 0.5, 0.5, 0.5, 2.0, 2.0), 80, 30, 0.02, 14.0, level=True),
)
"""With what is usual lately, and usual at this time of day: better where steps hardly depend on each other."""


class AnalogPanel:
    """Series of one step side by side; ``append`` adds the next value of each."""

    def __init__(self, values: Array, steps_per_day: int) -> None:
        """``values`` (series, steps), finite; there may be none yet."""
        self.steps_per_day = steps_per_day
        self.steps = values.shape[1]
        self._values = np.concatenate([values, np.zeros((len(values), ROOM))], axis=1)
        self._features = np.zeros((len(values), self._values.shape[1] + 1, len(FEATURES)))
        self._begin()

    def _begin(self) -> None:
        """What is fixed once a day has been seen: the scale of each series, and from when on moments are compared."""
        seen = self._values[:, : self.steps]
        spread, size = (seen.std(axis=1), np.abs(seen).max(axis=1)) if self.steps else (np.zeros(len(seen)),) * 2
        scale = np.where(spread > 0, spread, size)
        self._scale = np.where(scale > 0, scale, 1.0)
        self._first = max(3, min(self.steps_per_day + 1, self.steps // 2))
        self._describe(1, self.steps)

    def append(self, values: Array) -> None:
        if self.steps == self._values.shape[1]:
            self._values = np.concatenate([self._values, np.zeros((len(values), ROOM))], axis=1)
            more = np.zeros((len(values), ROOM, len(FEATURES)))
            self._features = np.concatenate([self._features, more], axis=1)
        self._values[:, self.steps] = values
        self.steps += 1
        if self.steps <= self.steps_per_day:
            self._begin()
        else:
            self._describe(self.steps, self.steps)

    def values(self, since: int = 0) -> Array:
        """(series, steps - since)."""
        return self._values[:, since : self.steps]

    def can_forecast(self, origin: int) -> bool:
        return bool(origin >= self._first + 4)

    def paths(self, horizon: int, views: tuple[View, ...] = SHARP, *, origin: int | None = None) -> Array:
        """(series, PATHS, horizon) from ``origin`` (default: the end), knowing what came before it only, but for the
        scale of a series, which is fixed once a day has been seen.

        Row i of a series is its i-th smallest at the first step; later steps follow the neighbour that row i came from.
        """
        at = self.steps if origin is None else origin
        made = [self._paths_of(view, at, horizon) for view in views]
        marginals = np.mean([np.sort(paths, axis=1) for paths in made], axis=0)
        return np.asarray(np.take_along_axis(marginals, _ranks(made[0]), axis=1), dtype=np.float64)

    def _describe(self, first: int, last: int) -> None:
        """Features of the moments first … last: what was known before each."""
        at = np.arange(first, last + 1)
        day, week = self.steps_per_day, 7 * self.steps_per_day

        def back(steps: int, otherwise: Array | None = None) -> Array:
            found = self._values[:, np.maximum(at - steps, 0)]
            return found if otherwise is None else np.where(at >= steps, found, otherwise)

        newest = back(1)
        yesterday = back(day, newest)
        sums = np.concatenate([np.zeros((len(self._values), 1)), self._values[:, :last].cumsum(axis=1)], axis=1)
        phase = 2 * np.pi * (at % day) / day
        flat = np.ones_like(newest)
        levels = [newest, back(2), back(3), yesterday, back(week, yesterday)]
        levels += [_mean(sums, at, max(day // 4, 4)), _mean(sums, at, day)]
        columns = [level / self._scale[:, None] for level in levels]
        columns += [flat * np.sin(phase), flat * np.cos(phase)]
        self._features[:, first : last + 1] = np.stack(columns, axis=-1)

    def _paths_of(self, view: View, at: int, horizon: int) -> Array:
        past = self._features[:, self._first : at]
        apart = (past - self._features[:, at : at + 1]) * np.array(view.weights)
        distance = np.einsum("pij,pij->pi", apart, apart)
        count = min(view.neighbours, distance.shape[1])
        chosen = np.argpartition(distance, count - 1, axis=1)[:, :count]
        near = np.take_along_axis(distance, chosen, axis=1)
        typical = np.sort(near, axis=1)[:, min(view.near, count - 1), None] + 1e-12
        moments = chosen + self._first
        age = (at - moments) / (view.memory_days * self.steps_per_day)
        weight = (np.exp(-near / typical) + view.floor) * np.exp(-age)
        return self._continued(moments, weight, at, horizon, level=view.level)

    def _continued(self, moments: NDArray[np.int64], weight: Array, at: int, horizon: int, *, level: bool) -> Array:
        """The last value plus what changed after each moment, (series, PATHS, horizon)."""
        series = np.arange(len(moments))[:, None]
        before = 0.0 if level else self._values[series, moments - 1]
        last = np.zeros(len(moments)) if level else self._values[:, at - 1]
        paths = np.empty((len(moments), PATHS, horizon))
        drawn: NDArray[np.int64] | None = None
        for step in range(horizon):
            counts = np.where(moments + step < at, weight, 0.0) + 1e-12 * weight
            changed = self._values[series, np.minimum(moments + step, at - 1)] - before
            order = changed.argsort(axis=1)
            places = _places(np.take_along_axis(counts, order, axis=1))
            ordered = np.take_along_axis(changed, order, axis=1)
            marginal = np.stack([np.interp(LEVELS, *row) for row in zip(places, ordered, strict=True)])
            if drawn is None:
                drawn = np.take_along_axis(order, _drawn(places), axis=1)
            else:
                marginal = np.take_along_axis(marginal, _ranks(np.take_along_axis(changed, drawn, axis=1)), axis=1)
            paths[:, :, step] = last[:, None] + marginal
        return paths


def _places(shares: Array) -> Array:
    """Where each of the ordered values stands in its distribution, (series, neighbours) in (0, 1)."""
    return np.asarray((shares.cumsum(axis=1) - shares / 2) / shares.sum(axis=1, keepdims=True), dtype=np.float64)


def _drawn(places: Array) -> NDArray[np.int64]:
    """For each path of each series, which of the ordered neighbours it comes from."""
    return np.stack([np.searchsorted(row, LEVELS).clip(max=len(row) - 1) for row in places])


def _ranks(values: Array) -> NDArray[np.int64]:
    """Along the second axis, from 0; ties in the order they stand."""
    return np.asarray(values.argsort(axis=1, kind="stable").argsort(axis=1, kind="stable"), dtype=np.int64)


def _mean(sums: Array, at: NDArray[np.int64], width: int) -> Array:
    since = np.maximum(at - width, 0)
    return np.asarray((sums[:, at] - sums[:, since]) / np.maximum(at - since, 1), dtype=np.float64)
