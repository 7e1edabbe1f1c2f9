"""Scheduled events, known ahead: launches, promotions, matches, holidays. What they did before, they do again."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from engine.errors import BadUsageData
from engine.model.value import Utc, Value
from forecasting.base import Array, History
from forecasting.sample_forecast import SampleForecast

SHAPE = "kind, start, end (UTC) and, for an event of one series only, series_id"
WEEKS = 4
DOUBT = 1.0
"""So many occurrences without any effect are added to those that were seen."""
FARTHEST = 3.0
"""Logarithms of effects are cut here: twenty times as much, or as little."""


class Event(Value):
    """``series_id`` None: it concerns every series of the file."""

    kind: str
    start: Utc
    end: Utc
    series_id: str | None = None


class Effect(Value):
    """Of a kind of event on usage, as a logarithm: its mean, and its standard deviation from one event to the next."""

    kind: str
    log_mean: float
    log_spread: float
    occurrences: int


def read_events(path: Path) -> tuple[Event, ...]:
    """CSV. Raises BadUsageData, with the row, for a missing column, a bad time or an end before its start."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True)
    except (OSError, ValueError) as problem:
        raise BadUsageData(
            f"{path} cannot be read as events", why=str(problem), next_step=f"give a CSV with {SHAPE}"
        ) from problem
    missing = [name for name in ("kind", "start", "end") if name not in table.columns]
    if missing:
        raise BadUsageData(
            f"{path} lacks the column {missing[0]}", why=f"it has {', '.join(table.columns)}", next_step=f"give {SHAPE}"
        )
    rows = table.to_dict("records")
    return tuple(_event(path, row, {str(k): str(v) for k, v in cells.items()}) for row, cells in enumerate(rows, 1))


def learn(events: Sequence[Event], histories: Sequence[History]) -> tuple[Effect, ...]:
    """What each kind did where it lies in the histories: measured beside the same time of the four weeks before, over
    all series. Kinds that never happened before are left out."""
    seen: dict[str, list[float]] = {}
    for history in histories:
        inside = _any_inside(events, history, len(history.values))
        for event in events:
            found = _log_ratio(event, history, inside)
            if found is not None:
                seen.setdefault(event.kind, []).append(found)
    return tuple(
        Effect(
            kind=kind,
            log_mean=float(np.sum(logs) / (len(logs) + DOUBT)),
            log_spread=float(np.std(logs)) if len(logs) > 1 else abs(logs[0]) / 2,
            occurrences=len(logs),
        )
        for kind, logs in sorted(seen.items())
    )


def without(history: History, events: Sequence[Event], effects: Sequence[Effect]) -> History:
    """The history as it would have been without its events, so that none of them is taken for a habit."""
    values = history.values.copy()
    for event, effect in _known(events, effects, history.series_id):
        values[_inside(event, history.start, history.freq, len(values))] /= np.exp(effect.log_mean)
    return History(history.series_id, history.start, history.freq, values, synthetic=history.synthetic)


def with_events(forecast: SampleForecast, events: Sequence[Event], effects: Sequence[Effect]) -> SampleForecast:
    """The forecast with the effect of every event in its horizon; each path draws how strong that turns out."""
    paths = forecast.sample_paths(forecast.held).copy()
    for event, effect in _known(events, effects, forecast.series_id):
        steps = _inside(event, forecast.start, forecast.freq, forecast.horizon)
        if steps.any():
            strength = np.random.default_rng([len(paths), int(event.start.timestamp())]).standard_normal(len(paths))
            paths[:, steps] *= np.exp(effect.log_mean + effect.log_spread * strength)[:, None]
    return SampleForecast(forecast.series_id, forecast.start, forecast.freq, paths, forecast.forecaster)


def unknown_kinds(events: Sequence[Event], effects: Sequence[Effect]) -> tuple[str, ...]:
    return tuple(sorted({event.kind for event in events} - {effect.kind for effect in effects}))


def _event(path: Path, row: int, cells: dict[str, str]) -> Event:
    try:
        start, end = _moment(cells["start"]), _moment(cells["end"])
        if end <= start:
            raise ValueError("the end is not after the start")
    except ValueError as problem:
        raise BadUsageData(
            f"row {row} of {path} is not an event", why=str(problem), next_step=f"mend the row: {SHAPE}"
        ) from problem
    return Event(kind=cells["kind"], start=start, end=end, series_id=cells.get("series_id") or None)


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _inside(event: Event, start: datetime, freq: timedelta, steps: int) -> NDArray[np.bool_]:
    """Which steps overlap the event."""
    first, last = (event.start - start) / freq, (event.end - start) / freq
    at = np.arange(steps)
    return np.asarray((at + 1 > first) & (at < last), dtype=np.bool_)


def _any_inside(events: Sequence[Event], history: History, steps: int) -> NDArray[np.bool_]:
    inside = np.zeros(steps, dtype=np.bool_)
    for event in events:
        if event.series_id in (None, history.series_id):
            inside |= _inside(event, history.start, history.freq, steps)
    return inside


def _log_ratio(event: Event, history: History, eventful: NDArray[np.bool_]) -> float | None:
    """Of the mean measured during the event to the mean expected; None where either is not known or not above zero."""
    week = round(timedelta(days=7) / history.freq)
    at = np.flatnonzero(_inside(event, history.start, history.freq, len(history.values)))
    if event.series_id not in (None, history.series_id) or not len(at):
        return None
    quiet = np.where(eventful, np.nan, history.values)
    lags = at[:, None] - week * np.arange(1, WEEKS + 1)
    before: Array = np.where(lags >= 0, quiet[np.maximum(lags, 0)], np.nan)
    usable = np.isfinite(before).any(axis=1) & np.isfinite(history.values[at])
    if not usable.any():
        return None
    expected = float(np.nanmedian(before[usable], axis=1).mean())
    measured = float(history.values[at][usable].mean())
    if measured <= 0 or expected <= 0:
        return None
    return float(np.clip(np.log(measured / expected), -FARTHEST, FARTHEST))


def _known(events: Sequence[Event], effects: Sequence[Effect], series_id: str) -> list[tuple[Event, Effect]]:
    by_kind = {effect.kind: effect for effect in effects}
    mine = [event for event in events if event.series_id in (None, series_id)]
    return [(event, by_kind[event.kind]) for event in mine if event.kind in by_kind]
