"""How many shards a fleet should have in the next step: a guess plus a quantile of that guess's own errors.

Nothing is set by hand. The level of the quantile is the lowest with which the same rule, played over the history before
step 0, would have left short no more than ``AIM`` of what the fleet is allowed to; errors are those of the last weeks.
"""

from math import ceil
from typing import Protocol

import numpy as np

from lab.policies.board_view import BoardView, FleetView, Series

AIM = 0.5
"""What follows is rarely as kind as the history, so the history has to keep a stricter limit."""
UNKNOWN_MARGIN = 0.25
"""Of the last value, where there is no history to learn from."""
WINDOW_DAYS = 14
LEVELS = (*np.linspace(0.5, 0.95, 19), *np.linspace(0.955, 1.0, 10))


class Guess(Protocol):
    """``all``: from n steps, a guess of steps 1 .. n, each from the steps before it alone.

    ``needs``: how many steps must be known before a guess counts.
    """

    needs: int

    def start(self, fleet: FleetView, steps_a_day: int) -> None: ...
    def all(self, series: Series) -> Series: ...


class Sizing(Protocol):
    def start(self, board: BoardView) -> None: ...
    def shards(self, fleet: FleetView) -> int: ...


class Peak:
    """The most that the history or the game has seen, for good."""

    def start(self, board: BoardView) -> None:
        pass

    def shards(self, fleet: FleetView) -> int:
        return ceil(max(fleet.demand, default=0.0))


class QuantileOf:
    """A guess plus the quantile of its errors; ``guess`` makes a fresh one for each fleet.

    ``level``: of the quantile, for all fleets, instead of the one that is learnt from the history.
    """

    def __init__(self, guess: type[Guess], level: float | None = None) -> None:
        self._kind = guess
        self._given = level
        self._guesses: dict[str, Guess] = {}
        self._level: dict[str, float] = {}
        self._window = 1

    def start(self, board: BoardView) -> None:
        self._window = WINDOW_DAYS * board.steps_a_day
        for fleet in board.fleets:
            guess = self._guesses[fleet.id] = self._kind()
            guess.start(fleet, board.steps_a_day)
            self._level[fleet.id] = self._learnt(fleet, guess) if self._given is None else self._given

    def shards(self, fleet: FleetView) -> int:
        series, guess = fleet.series, self._guesses[fleet.id]
        if len(series) <= guess.needs + 1:
            return ceil(series[-1] * (1 + UNKNOWN_MARGIN)) if len(series) else 0
        guessed = guess.all(series)
        errors = (series[1:] - guessed[:-1])[guess.needs :][-self._window :]
        return max(0, ceil(float(guessed[-1] + np.quantile(errors, self._level[fleet.id]))))

    def _learnt(self, fleet: FleetView, guess: Guess) -> float:
        series = fleet.series
        if len(series) <= guess.needs + 1:
            return 1.0
        errors = (series[1:] - guess.all(series)[:-1])[guess.needs :]
        most = AIM * fleet.allowed * series[1 + guess.needs :].sum()
        for level in LEVELS:
            if np.maximum(0.0, errors - np.quantile(errors, level)).sum() <= most:
                return float(level)
        return 1.0


class Last:
    """The next step is as the last."""

    needs = 0

    def start(self, fleet: FleetView, steps_a_day: int) -> None:
        pass

    def all(self, series: Series) -> Series:
        return series


class SameTimeOfDay:
    """The mean of the same time of day on the last ``DAYS`` days; the last value until a day has been seen."""

    DAYS = 14

    def start(self, fleet: FleetView, steps_a_day: int) -> None:
        self.needs = self._day = steps_a_day

    def all(self, series: Series) -> Series:
        sums, counts = np.zeros(len(series)), np.zeros(len(series))
        for back in range(1, self.DAYS + 1):
            shift = back * self._day - 1
            if shift < len(series):
                sums[shift:] += series[: len(series) - shift]
                counts[shift:] += 1
        return np.where(counts > 0, sums / np.maximum(counts, 1), series)


class LastOrSameTimeOfDay(SameTimeOfDay):
    """Whichever is higher: a forecast that only ever scales out."""

    def all(self, series: Series) -> Series:
        return np.maximum(series, super().all(series))


class SeasonalNaive:
    """The value a season before: a day or a week, whichever erred less on the history."""

    def start(self, fleet: FleetView, steps_a_day: int) -> None:
        series = fleet.series
        fitting = [season for season in (steps_a_day, 7 * steps_a_day) if 2 * season <= len(series)]
        self._season = min(fitting, key=lambda season: _mean_error(series, season), default=steps_a_day)
        self.needs = self._season

    def all(self, series: Series) -> Series:
        shift = self._season - 1
        if len(series) <= shift:
            return series
        return np.concatenate([series[:shift], series[: len(series) - shift]])


def _mean_error(series: Series, season: int) -> float:
    return float(np.abs(series[season:] - series[:-season]).mean())


class Regression(SameTimeOfDay):
    """Least squares on the history: the last two values, the same time of the days before (mean), of yesterday and of
    last week, and how yesterday stood one step earlier.
    """

    def start(self, fleet: FleetView, steps_a_day: int) -> None:
        super().start(fleet, steps_a_day)
        series = fleet.series
        if 14 * steps_a_day <= len(series):
            self.needs = 7 * steps_a_day
        self._weights = np.eye(1, 6)[0]
        known, truth = self._features(series)[self.needs : -1], series[1 + self.needs :]
        if len(truth) >= 2 * steps_a_day:
            self._weights = np.linalg.lstsq(known, truth, rcond=None)[0]

    def all(self, series: Series) -> Series:
        guessed: Series = np.maximum(0.0, self._features(series) @ self._weights)
        return guessed

    def _features(self, series: Series) -> Series:
        day = self._day
        columns = (
            series,
            _back(series, 1),
            super().all(series),
            _back(series, day - 1),
            _back(series, 7 * day - 1),
            _back(series, day),
        )
        return np.column_stack(columns)


def _back(series: Series, steps: int) -> Series:
    """The value ``steps`` before each; the value itself where there is none."""
    if steps == 0 or steps >= len(series):
        return series
    return np.concatenate([series[:steps], series[:-steps]])
