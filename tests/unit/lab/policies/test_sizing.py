"""Guesses look back only; levels are as low as the history allows."""

import numpy as np
import pytest

from lab.game import init_of
from lab.policies.board_view import BoardView
from lab.policies.sizing import (
    Guess,
    Last,
    LastOrSameTimeOfDay,
    QuantileOf,
    Regression,
    SameTimeOfDay,
    SeasonalNaive,
)
from tests.unit.lab.cases import case_of, document, offer, pool

GUESSES: list[type[Guess]] = [Last, SameTimeOfDay, LastOrSameTimeOfDay, SeasonalNaive, Regression]
DAY = 24


def board(history: list[int]) -> BoardView:
    return BoardView(init_of(case_of(document([pool("a", "bronze", [1], history)], [offer("A", "on_demand")]))))


def daily(days: int) -> list[int]:
    return [10 + step % DAY for step in range(days * DAY)]


@pytest.mark.parametrize("kind", GUESSES)
def test_a_guess_knows_nothing_of_what_comes_after(kind: type[Guess]) -> None:
    fleet = board(daily(16)).fleets[0]
    guess = kind()
    guess.start(fleet, DAY)
    whole = guess.all(fleet.series)
    assert len(whole) == len(fleet.series)
    for known in (1, DAY, 5 * DAY + 3):
        assert np.allclose(guess.all(fleet.series[:known])[-1], whole[known - 1])


@pytest.mark.parametrize("kind", [SameTimeOfDay, SeasonalNaive, Regression])
def test_a_daily_load_is_guessed_exactly(kind: type[Guess]) -> None:
    fleet = board(daily(16)).fleets[0]
    guess = kind()
    guess.start(fleet, DAY)
    assert guess.all(fleet.series)[-1] == pytest.approx(10)


def test_a_weekly_load_is_guessed_by_the_week() -> None:
    week = [20] * 5 * DAY + [5] * 2 * DAY
    fleet = board(week * 4).fleets[0]
    guess = SeasonalNaive()
    guess.start(fleet, DAY)
    assert guess.needs == 7 * DAY


def test_the_level_follows_what_may_be_short() -> None:
    rng = np.random.default_rng(3)
    history = rng.poisson(50, 20 * DAY).tolist()
    view = board(history)
    loose, strict = QuantileOf(Last), QuantileOf(Last)
    loose.start(view)
    wanted = loose.shards(view.fleets[0])
    view.fleets[0].allowed = 0.0001
    strict.start(view)
    assert strict.shards(view.fleets[0]) > wanted


def test_the_worst_class_of_a_fleet_bounds_what_may_be_short() -> None:
    data = document([pool("g", "gold", [1], [30] * 9), pool("s", "silver", [1], [10] * 9)], [offer("A", "on_demand")])
    assert BoardView(init_of(case_of(data))).fleets[0].allowed == pytest.approx(0.0025)
