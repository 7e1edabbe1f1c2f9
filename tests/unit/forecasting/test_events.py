from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from engine.errors import BadUsageData
from forecasting.base import History, until
from forecasting.events import Event, learn, read_events, unknown_kinds, with_events, without
from forecasting.sample_forecast import SampleForecast
from forecasting.synthetic import synthetic_history

DAY = timedelta(days=1)


def match(start: datetime, series_id: str | None = None) -> Event:
    return Event(kind="match", start=start, end=start + timedelta(hours=4), series_id=series_id)


def eventful(times: float, days: tuple[int, ...] = (30, 37, 45, 52)) -> tuple[History, list[Event]]:
    """Eight weeks; usage is ``times`` as much for the four hours of each match, the last of which lies ahead."""
    plain = synthetic_history(seed=4, days=56, noise=0.05)
    events = [match(plain.start + day * DAY + timedelta(hours=18)) for day in days]
    values = plain.values.copy()
    for day in days:
        values[day * 24 + 18 : day * 24 + 22] *= times
    return History(plain.series_id, plain.start, plain.freq, values, synthetic=True), events


@pytest.mark.parametrize("times", [0.3, 2.5])
def test_the_effect_of_past_events_is_learnt_without_the_events_themselves(times: float) -> None:
    history, events = eventful(times)
    (effect,) = learn(events, [until(history, 50 * 24)])
    assert effect.occurrences == 3
    assert effect.log_mean == pytest.approx(np.log(times) * 3 / 4, abs=0.1)
    assert effect.log_spread < 0.15


def test_a_forecast_over_an_event_carries_its_effect_and_only_there() -> None:
    history, events = eventful(2.5)
    past = until(history, 52 * 24)
    effects = learn(events, [past])
    flat = SampleForecast(past.series_id, past.end, past.freq, np.full((200, 24), 10.0), "x")
    made = with_events(flat, events, effects)
    median = made.quantile(0.5)
    assert np.allclose(median[:18], 10)
    assert np.allclose(median[22:], 10)
    assert (median[18:22] > 16).all()
    assert (made.quantile(0.95) >= made.quantile(0.5)).all()
    assert np.array_equal(with_events(flat, [match(past.end, "other")], effects).quantile(0.5), np.full(24, 10.0))


def test_past_events_are_taken_out_of_the_history() -> None:
    history, events = eventful(2.5)
    plain = synthetic_history(seed=4, days=56, noise=0.05)
    effects = learn(events, [history])
    cleaned = without(history, events, effects)
    at = slice(30 * 24 + 18, 30 * 24 + 22)
    assert np.abs(np.log(cleaned.values[at] / plain.values[at])).max() < 0.4
    assert np.array_equal(cleaned.values[:700], history.values[:700])


def test_a_kind_without_a_past_is_named_and_changes_nothing() -> None:
    history, _ = eventful(1.0)
    ahead = [match(history.end)]
    assert learn(ahead, [history]) == ()
    assert unknown_kinds(ahead, ()) == ("match",)


def test_events_are_read_with_their_zones(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_text(
        "kind,start,end,series_id\nlaunch,2026-03-02T10:00+02:00,2026-03-02T12:00+02:00,\nsale,2026-03-03,2026-03-04,a\n"
    )
    launch, sale = read_events(path)
    assert (launch.start.hour, launch.series_id) == (8, None)
    assert (sale.end - sale.start, sale.series_id) == (DAY, "a")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("kind,start\nlaunch,2026-03-02\n", "lacks the column end"),
        ("kind,start,end\nlaunch,soon,2026-03-02\n", "row 1"),
        ("kind,start,end\nok,2026-03-01,2026-03-02\nlaunch,2026-03-02,2026-03-02\n", "row 2"),
    ],
)
def test_bad_events_are_refused_with_their_row(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_text(text)
    with pytest.raises(BadUsageData, match=says):
        read_events(path)
