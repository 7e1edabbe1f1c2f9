from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from forecasting.base import Array, History
from forecasting.findings import Finding, findings, similar_ids
from forecasting.synthetic import synthetic_fleet

HOUR = timedelta(hours=1)
START = datetime(2026, 3, 2, tzinfo=UTC)
NOW = datetime(2026, 11, 24, tzinfo=UTC)


def day_and_night(days: int = 28) -> Array:
    noise = np.random.default_rng(5).normal(0, 0.3, days * 24)
    return 10 + 4 * np.sin(np.arange(days * 24) * 2 * np.pi / 24) + noise


def seen(values: Array, metric: str = "cpu_cores", *, newest: datetime | None = None) -> dict[str, Finding]:
    history = History("s", START, HOUR, np.asarray(values, dtype=np.float64))
    return {f.observation: f for f in findings(history, metric, newest=newest or history.end, now=NOW)}


def test_an_ordinary_cycle_raises_nothing() -> None:
    assert seen(day_and_night()) == {}
    assert [
        f for h in synthetic_fleet(20, seed=3, days=28) for f in findings(h, "requests", newest=h.end, now=NOW)
    ] == []


def test_a_week_with_quiet_weekends_raises_nothing() -> None:
    weekday = np.repeat(np.tile([1.0, 1, 1, 1, 1, 0.4, 0.4], 6), 24)
    assert seen(day_and_night(42) * weekday) == {}


def test_a_lasting_step_is_a_level_shift() -> None:
    values = day_and_night()
    values[14 * 24 :] *= 2
    shift = seen(values)["level_shift"]
    assert shift.start is not None
    assert abs(shift.start - (START + timedelta(days=14))) <= timedelta(days=2)
    assert shift.text == "its level goes from 9.941 to 20.15 and stays there"


@pytest.mark.parametrize("factor", [1000.0, 1 / 1024, 100.0])
def test_a_step_by_a_ratio_of_units_is_called_that(factor: float) -> None:
    values = day_and_night()
    values[14 * 24 :] *= factor
    assert set(seen(values, "requests")) == {"unit_change"}


def test_a_flash_crowd_is_no_level_shift() -> None:
    values = day_and_night()
    values[300:310] *= 8
    assert "level_shift" not in seen(values)


def test_zeros_where_there_are_none_are_an_outage() -> None:
    values = day_and_night()
    values[100:105] = 0
    outage = seen(values)["outage"]
    assert (outage.start, outage.end) == (START + 100 * HOUR, START + 105 * HOUR)
    assert "5 hours" in outage.text


def test_intermittent_demand_has_no_outages() -> None:
    values = np.where(np.random.default_rng(1).random(28 * 24) < 0.1, 3.0, 0.0)
    assert "outage" not in seen(values)


def test_a_long_gap_is_named() -> None:
    values = day_and_night()
    values[50:80] = np.nan
    gap = seen(values)["long_gap"]
    assert (gap.start, gap.end) == (START + 50 * HOUR, START + 80 * HOUR)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], {"nothing_measured"}),
        ([np.nan] * 100, {"nothing_measured"}),
        ([3.0], {"too_short"}),
        (list(range(1, 11)), {"too_short"}),
        ([7.0] * 100, {"constant"}),
        ([0.0] * 100, {"all_zero"}),
    ],
    ids=["none", "only gaps", "one point", "ten points", "constant", "all zero"],
)
def test_short_and_flat_ones(values: list[float], expected: set[str]) -> None:
    assert set(seen(np.array(values, dtype=np.float64))) - {"long_gap"} == expected


def test_a_series_that_ended_before_the_others() -> None:
    newest = START + timedelta(days=40)
    ended = seen(day_and_night(), newest=newest)["ended_early"]
    assert (ended.end, "12 days older" in ended.text) == (newest, True)


def test_values_of_the_future() -> None:
    history = History("s", NOW - 5 * HOUR, HOUR, day_and_night())
    found = {f.observation: f for f in findings(history, "requests", newest=history.end, now=NOW)}
    assert found["future"].start == NOW


@pytest.mark.parametrize(("metric", "scale"), [("cpu_util", 10.0), ("memory_gib", 2.0**30), ("cpu_cores", 1e9)])
def test_values_that_do_not_fit_the_unit(metric: str, scale: float) -> None:
    assert set(seen(day_and_night() * scale, metric)) == {"unit_does_not_fit"}


@pytest.mark.parametrize("scale", [1e12, 1e-12])
def test_the_scale_alone_changes_nothing(scale: float) -> None:
    shifted = day_and_night()
    shifted[14 * 24 :] *= 2
    assert seen(day_and_night() * scale, "requests") == {}
    assert set(seen(shifted * scale, "requests")) == {"level_shift"}


def test_ids_that_differ_in_blanks_or_case_alone() -> None:
    assert [f.series_id for f in similar_ids(["api", "API", "db", "api "])] == ["API", "api "]
