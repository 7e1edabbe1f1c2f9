"""Turns histories into scaled windows: what the encoder and the decoder of the network see.

Every window is moved by its recent mean and divided by its mean change over one horizon (at most a day), so that one
network serves cores, bytes and requests alike, and so that the loss in scaled units is close to "times naive".
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

import numpy as np
import torch
from numpy.typing import NDArray

from engine.errors import BadUsageData
from forecasting.base import Array, History
from forecasting.rnn.experts import EXPERTS, WEEKS, Index, expert_quantiles
from forecasting.rnn.levels import LEVELS

DAY = timedelta(days=1)
LAG_DAYS = 14
"""The decoder sees the values 1 to 14 days before each target step, where they are known."""
SMALLEST_SCALE = 1e-3
"""Relative to the window's mean |value|: below it a change counts as noise."""
SWING = 0.2
"""The scale is at least this share of the mean distance from the recent mean, so that cycles are never cut off."""
FARTHEST = 60.0
"""Scaled values are cut here, so that one burst does not drown a batch."""
CALENDAR = 13
ENCODER_FEATURES = 2 + CALENDAR
STATIC = 5
SHOWN = tuple(LEVELS.index(level) for level in (0.05, 0.2, 0.5, 0.8, 0.95))
"""Of each expert the decoder sees these quantiles."""
DECODER_FEATURES = 2 * LAG_DAYS + CALENDAR + 1 + STATIC + EXPERTS * (len(SHOWN) + 1)
ANCHORS = LAG_DAYS + 2
"""The lags, the last value, and the mean of the last day."""


@dataclass(frozen=True)
class Batch:
    """B windows; ``target`` is NaN where nothing was measured. ``loc`` and ``scale`` turn it back into units."""

    encoder: torch.Tensor  # (B, context, ENCODER_FEATURES)
    decoder: torch.Tensor  # (B, horizon, DECODER_FEATURES)
    anchors: torch.Tensor  # (B, horizon, ANCHORS)
    known: torch.Tensor  # (B, horizon, ANCHORS + EXPERTS) which anchors and experts are
    experts: torch.Tensor  # (B, horizon, EXPERTS, len(LEVELS))
    target: torch.Tensor  # (B, horizon)
    weight: torch.Tensor  # (B,) what a loss in scaled units is worth: the window's scale beside its series' own
    loc: Array  # (B,)
    scale: Array  # (B,)

    def to(self, device: torch.device) -> "Batch":
        return replace(
            self,
            encoder=self.encoder.to(device),
            decoder=self.decoder.to(device),
            anchors=self.anchors.to(device),
            known=self.known.to(device),
            experts=self.experts.to(device),
            target=self.target.to(device),
            weight=self.weight.to(device),
        )


class Panel:
    """Many histories of one frequency. Windows are named by (series index, origin): the target starts at the origin.

    Raises BadUsageData when the histories differ in frequency or their step does not divide a day.
    """

    def __init__(self, histories: Sequence[History], *, context: int, horizon: int, reach: int | None = None) -> None:
        """``reach``: the horizon that sets the scale (a network keeps the one it was trained for); default horizon."""
        self.per_day = _steps_per_day(histories)
        self._longest = max(reach or horizon, horizon)
        self._reach = min(reach or horizon, self.per_day)
        self.histories, self.context, self.horizon = tuple(histories), context, horizon
        self.pad = max(context, WEEKS * 7 * self.per_day + self.per_day, 15 * self.per_day + self._longest + 8)
        self.lengths = np.array([len(h.values) for h in histories], dtype=np.int64)
        self.sizes = np.array([_largest(h.values) for h in histories])
        blocks = [self._block(h.values / size) for h, size in zip(histories, self.sizes, strict=True)]
        self._offsets = np.cumsum([0, *(len(block[0]) for block in blocks)])[:-1] + self.pad
        columns = [np.concatenate(part) for part in zip(*blocks, strict=True)]
        self._values, self._locs, self._scales, self._manners = columns
        self._usual = np.array([block[2].mean() for block in blocks])
        self._phases = np.array([self._phase(h) for h in histories], dtype=np.int64)

    def _block(self, values: Array) -> tuple[Array, Array, Array, Array]:
        """The padded series and, at each origin, what came before it: mean, scale, and manners (…, 3): how large the
        level, the step-to-step and the week-to-week changes are beside the scale."""
        padded = np.concatenate([np.full(self.pad, np.nan), values, np.full(self.horizon, np.nan)])
        day, fortnight = self.per_day, LAG_DAYS * self.per_day
        loc = _carried(_trailing_mean(padded, 7 * self._reach), _trailing_mean(padded, 7 * day))
        level = _carried(_trailing_mean(np.abs(padded), fortnight))
        step = _carried(_trailing_mean(_change(padded, 1), fortnight))
        change = _carried(_trailing_mean(_change(padded, self._reach), fortnight), step)
        week = _carried(_trailing_mean(_change(padded, 7 * day), fortnight), change)
        swing = _carried(_trailing_mean(np.abs(padded - loc), fortnight))
        scale = np.maximum.reduce([change, SWING * swing, SMALLEST_SCALE * level])
        scale = np.where(scale > 0, scale, SMALLEST_SCALE)
        manners = [np.log(level / scale + 0.1), np.log(step / scale + 0.01), np.log(week / scale + 0.01)]
        return padded, loc, scale, np.stack(manners, axis=-1)

    def _phase(self, history: History) -> int:
        """Steps since Monday 00:00 UTC at the history's start."""
        return int((history.start.timestamp() + 3 * 86400) // history.freq.total_seconds()) % (7 * self.per_day)

    def gather(self, series: Index, origins: Index) -> Batch:
        """The windows (series[i], origins[i])."""
        base = self._offsets[series] + origins
        loc, scale = self._locs[base], self._scales[base]
        past, ahead = np.arange(-self.context, 0), np.arange(self.horizon)

        def scaled(index: Index) -> Array:
            shape = (-1,) + (1,) * (index.ndim - 1)
            moved = (self._values[index] - loc.reshape(shape)) / scale.reshape(shape)
            return np.asarray(np.clip(moved, -FARTHEST, FARTHEST), dtype=np.float64)

        seen = scaled(base[:, None] + past)
        lags, lagged_from = self._lags(ahead)
        lagged = np.where(lagged_from, scaled(base[:, None, None] + lags), np.nan)
        anchors = np.concatenate([lagged, self._recent(seen)], axis=2)
        experts = self._experts(base, loc, scale)
        phase = self._phases[series] + origins
        statics = np.concatenate([self._manners[base], np.stack(self._tail(seen), axis=1)], axis=1)
        encoder = [_compress(seen)[..., None], np.isfinite(seen)[..., None], self._calendar(phase[:, None] + past)]
        decoder = [
            _compress(lagged),
            np.isfinite(lagged),
            self._calendar(phase[:, None] + ahead),
            np.broadcast_to(np.log1p(ahead)[None, :, None] / 4, (len(base), self.horizon, 1)),
            np.broadcast_to(statics[:, None, :], (len(base), self.horizon, STATIC)),
            _compress(experts[..., SHOWN]).reshape(len(base), self.horizon, -1),
            np.isfinite(experts[..., 0]),
        ]
        size = self.sizes[series]
        return Batch(
            encoder=_tensor(np.concatenate(encoder, axis=2)),
            decoder=_tensor(np.concatenate(decoder, axis=2)),
            anchors=_tensor(np.nan_to_num(anchors)),
            known=torch.from_numpy(np.isfinite(np.concatenate([anchors, experts[..., 0]], axis=2))),
            experts=_tensor(np.nan_to_num(experts)),
            target=_tensor(scaled(base[:, None] + ahead)),
            weight=_tensor(np.clip(scale / self._usual[series], 0.2, 5.0)),
            loc=loc * size,
            scale=scale * size,
        )

    def _experts(self, base: Index, loc: Array, scale: Array) -> Array:
        found = expert_quantiles(
            lambda index: self._values[index],
            base,
            per_day=self.per_day,
            horizon=self.horizon,
            reach=self._longest,
            levels=LEVELS,
        )
        moved = (found - loc[:, None, None, None]) / scale[:, None, None, None]
        return np.asarray(np.clip(moved, -FARTHEST, FARTHEST), dtype=np.float64)

    def _lags(self, ahead: Index) -> tuple[Index, NDArray[np.bool_]]:
        """Positions relative to the origin, (1, horizon, LAG_DAYS), and whether they lie before it."""
        lags = ahead[:, None] - self.per_day * np.arange(1, LAG_DAYS + 1)
        return np.maximum(lags, -self.pad)[None], np.expand_dims(np.less(lags, 0), 0)

    def _recent(self, seen: Array) -> Array:
        """Last measured value and mean of the last day, repeated over the horizon: (B, horizon, 2)."""
        last, day = self._tail(seen)
        known = np.isfinite(seen).any(axis=1)
        both = np.where(np.expand_dims(known, 1), np.stack([last, day], axis=1), 0.0)
        return np.broadcast_to(both[:, None, :], (len(seen), self.horizon, 2))

    def _tail(self, seen: Array) -> tuple[Array, Array]:
        measured = np.isfinite(seen)
        newest = seen.shape[1] - 1 - np.argmax(measured[:, ::-1], axis=1)
        last = np.nan_to_num(seen[np.arange(len(seen)), newest])
        recent, counted = seen[:, -self.per_day :], measured[:, -self.per_day :].sum(axis=1)
        day = np.nansum(recent, axis=1) / np.maximum(counted, 1)
        return last, np.where(counted > 0, day, last)

    def _calendar(self, phase: Index) -> Array:
        """Hour of day (two harmonics), hour of week (one) and weekday of each step, shape (..., CALENDAR)."""
        day = 2 * np.pi * (phase % self.per_day) / self.per_day
        week = 2 * np.pi * (phase % (7 * self.per_day)) / (7 * self.per_day)
        waves = [np.sin(day), np.cos(day), np.sin(2 * day), np.cos(2 * day), np.sin(week), np.cos(week)]
        weekday = np.eye(7)[(phase // self.per_day) % 7]
        return np.concatenate([np.stack(waves, axis=-1), weekday], axis=-1)


def _steps_per_day(histories: Sequence[History]) -> int:
    freqs = {h.freq for h in histories}
    if len(freqs) != 1:
        raise BadUsageData(
            "the series have different steps",
            why=", ".join(sorted(str(freq) for freq in freqs)) or "there are none",
            next_step="give --freq to bring them to one step",
        )
    steps, rest = divmod(DAY, freqs.pop())
    if rest:
        raise BadUsageData(
            "the step of the series does not divide a day",
            why=f"{histories[0].freq} leaves a rest of {rest}",
            next_step="give --freq with a step such as 5min, 15min or 1h",
        )
    return steps


def _largest(values: Array) -> float:
    """The largest magnitude, by which a series is divided before anything is summed; next to nothing if all is zero."""
    measured = np.abs(values[np.isfinite(values)])
    return float(measured.max()) if measured.size and measured.max() > 0 else 1e-12


def _trailing_mean(values: Array, width: int) -> Array:
    """Mean of the measured ones of values[t-width:t] at each t; NaN where there are none."""
    measured = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(measured, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(measured)])
    at = np.arange(len(values))
    since = np.maximum(at - width, 0)
    count = counts[at] - counts[since]
    return np.where(count > 0, (sums[at] - sums[since]) / np.maximum(count, 1), np.nan)


def _change(values: Array, lag: int) -> Array:
    """|values[t] - values[t - lag]|; NaN where either is."""
    change = np.full_like(values, np.nan)
    if lag < len(values):
        change[lag:] = np.abs(values[lag:] - values[:-lag])
    return change


def _carried(values: Array, otherwise: Array | None = None) -> Array:
    """NaN becomes the value of ``otherwise`` there, else what came before (a long outage), else 0."""
    filled = values if otherwise is None else np.where(np.isfinite(values), values, otherwise)
    newest = np.maximum.accumulate(np.where(np.isfinite(filled), np.arange(len(filled)), 0))
    return np.nan_to_num(filled[newest])


def _compress(scaled: Array) -> Array:
    """Zero for gaps, and logarithmic far from zero."""
    return np.arcsinh(np.nan_to_num(scaled))


def _tensor(array: Array) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
