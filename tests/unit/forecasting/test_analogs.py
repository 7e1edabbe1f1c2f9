"""Forecasts by analogy: laws of the panel on data whose truth is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from forecasting.analogs import LEVELS, PATHS, SHARP, SHORTEST, WIDE, AnalogPanel, View
from forecasting.base import Array

DAY = 24
NOISE = 1.0


def daily(days: int, *, series: int = 1, seed: int = 1, noise: float = NOISE) -> tuple[Array, Array]:
    """(values, their true mean), each (series, steps): a daily cycle and independent normal noise."""
    hours = np.arange(days * DAY)
    mean = np.stack([30 + 10 * np.sin(2 * np.pi * (hours + 5 * s) / DAY) for s in range(series)])
    return mean + np.random.default_rng(seed).normal(0, noise, mean.shape), mean


def pinball(paths: Array, came: float) -> float:
    """Mean over the levels that the paths stand for."""
    over = came - np.sort(paths)
    return float(np.maximum(LEVELS * over, (LEVELS - 1) * over).mean())


@pytest.mark.parametrize("views", [SHARP, WIDE], ids=["sharp", "wide"])
def test_appended_values_count_like_those_given_at_once(views: tuple[View, ...]) -> None:
    """The appended half is a rearrangement of the first, so that both panels find the same scale. It is longer than
    the room that a panel begins with."""
    first, _ = daily(30, series=2)
    second = np.random.default_rng(2).permuted(first, axis=1)
    grown = AnalogPanel(first, DAY)
    for column in second.T:
        grown.append(column)
    at_once = AnalogPanel(np.concatenate([first, second], axis=1), DAY)
    assert grown.steps == at_once.steps == 60 * DAY
    assert np.array_equal(grown.values(), at_once.values())
    assert np.allclose(grown.paths(3, views), at_once.paths(3, views))


@given(known=st.integers(0, DAY), more=st.integers(0, DAY))
@settings(max_examples=20, deadline=None)
def test_within_the_first_day_a_panel_grows_into_the_one_made_at_once(known: int, more: int) -> None:
    values, _ = daily(1, series=2)
    last = min(known + more, DAY)
    grown, at_once = AnalogPanel(values[:, :known], DAY), AnalogPanel(values[:, :last], DAY)
    for column in values[:, known:last].T:
        grown.append(column)
    assert grown.can_forecast(last) == at_once.can_forecast(last)
    if at_once.can_forecast(last):
        assert np.array_equal(grown.paths(2), at_once.paths(2))


@pytest.mark.parametrize("views", [SHARP, WIDE], ids=["sharp", "wide"])
def test_what_comes_after_the_origin_changes_nothing(views: tuple[View, ...]) -> None:
    known, _ = daily(10)
    panels = [AnalogPanel(known, DAY) for _ in range(2)]
    before = panels[0].paths(3, views)
    for step in range(40):
        panels[0].append(np.array([float(step)]))
        panels[1].append(np.array([1000.0 - step]))
    for panel in panels:
        assert np.array_equal(panel.paths(3, views, origin=known.shape[1]), before)
    assert not np.array_equal(panels[0].paths(3, views), panels[1].paths(3, views))


@given(seed=st.integers(0, 50), horizon=st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_paths_ascend_at_the_first_step_and_are_joint_afterwards(seed: int, horizon: int) -> None:
    values, _ = daily(8, series=2, seed=seed)
    paths = AnalogPanel(values, DAY).paths(horizon)
    assert paths.shape == (2, PATHS, horizon)
    assert (np.diff(paths[:, :, 0], axis=1) >= 0).all()
    assert np.isfinite(paths).all()


def test_later_steps_follow_the_first() -> None:
    """In a random walk what is high at the first step is high at the second."""
    walk = np.random.default_rng(4).normal(0, 1, 40 * DAY).cumsum()[None]
    paths = AnalogPanel(walk, DAY).paths(2)[0]
    assert np.corrcoef(paths.T)[0, 1] > 0.5


def test_one_series_of_a_panel_is_forecast_as_if_alone() -> None:
    values, _ = daily(10, series=3)
    together = AnalogPanel(values, DAY).paths(2, WIDE)
    for row in range(3):
        assert np.allclose(together[row], AnalogPanel(values[row : row + 1], DAY).paths(2, WIDE)[0])


def test_a_periodic_series_is_forecast_sharply() -> None:
    _, mean = daily(21)
    panel = AnalogPanel(mean[:, :-6], DAY)
    paths = panel.paths(6)[0]
    assert np.abs(paths - mean[0, -6:]).max() < 0.05 * np.ptp(mean)


def judged(views: tuple[View, ...]) -> tuple[float, dict[float, float]]:
    """(pinball loss / that of the last value with its usual changes, how much of the truth lies below a quantile).

    The truth is normal around a known mean, so coverage is a probability and not a count.
    """
    values, mean = daily(40, series=2)
    panel = AnalogPanel(values, DAY)
    ours, naive = 0.0, 0.0
    below: dict[float, list[float]] = {0.5: [], 0.9: [], 0.97: []}
    for origin in range(30 * DAY, 40 * DAY):
        paths = panel.paths(1, views, origin=origin)[:, :, 0]
        for row in range(2):
            changes = np.diff(values[row, origin - 14 * DAY : origin])
            ours += pinball(paths[row], values[row, origin])
            naive += pinball(values[row, origin - 1] + np.quantile(changes, LEVELS), values[row, origin])
            for level, shares in below.items():
                shares.append(float(norm.cdf(np.quantile(paths[row], level), mean[row, origin], NOISE)))
    return ours / naive, {level: float(np.mean(shares)) for level, shares in below.items()}


def test_the_wide_way_beats_the_last_value_and_covers_what_it_says() -> None:
    loss, covered = judged(WIDE)
    assert loss < 0.8
    assert covered == pytest.approx({level: level for level in covered}, abs=0.05)


def test_the_sharp_way_beats_the_last_value_and_is_too_sure_of_it() -> None:
    """Where steps are independent its few neighbours tell too little: 0.9 covers 0.78. The price of shortfall, which
    is found by looking back, makes up for it; nobody else may take these quantiles at their word."""
    loss, covered = judged(SHARP)
    assert loss < 0.8
    assert covered[0.5] == pytest.approx(0.5, abs=0.05)
    assert 0.75 < covered[0.9] < 0.9


def test_a_panel_begins_with_nothing() -> None:
    panel = AnalogPanel(np.zeros((2, 0)), DAY)
    assert not panel.can_forecast(panel.steps)
    while not panel.can_forecast(panel.steps):
        panel.append(np.array([5.0, 0.0]))
    assert panel.steps <= DAY
    assert np.allclose(panel.paths(1)[:, :, 0], [[5.0], [0.0]])


def test_a_series_of_another_step_has_another_day() -> None:
    """Features of the time of day follow the step of the history: 5 minutes here."""
    steps = np.arange(6 * 288)
    panel = AnalogPanel(np.where(steps % 288 < 144, 10.0, 2.0)[None], 288)
    assert np.allclose(np.median(panel.paths(1)[0]), 10.0)


def test_the_history_may_be_shorter_than_a_day() -> None:
    assert np.allclose(AnalogPanel(np.full((1, SHORTEST), 3.0), DAY).paths(2), 3.0)
