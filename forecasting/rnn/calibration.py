"""What the held-out tail says about the network's quantiles: how far off they are, and how errors hang together."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from forecasting.base import Array
from forecasting.rnn.levels import LEVELS, MEDIAN
from forecasting.togetherness import togetherness

Z_LEVELS = ndtri(np.array(LEVELS))
SPREADS = np.array([0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.15, 1.3, 1.5, 1.8, 2.2])
FARTHEST_Z = 3.1
TRUSTED_WINDOWS = 150
"""So many held-out windows weigh as much as the network's own levels."""


@dataclass(frozen=True)
class Calibration:
    """``levels``: the network level that stands for each of LEVELS. ``spreads``: by series, how much to stretch the
    quantiles around the median. ``correlation``: (horizon, horizon), of the normal scores of the errors. ``together``:
    how much the errors of different series move together."""

    levels: Array
    spreads: dict[str, float]
    correlation: Array
    together: float = 0.0

    def apply(self, heads: Array, series_ids: tuple[str, ...]) -> Array:
        """Network quantiles (B, horizon, levels) -> calibrated ones; ``series_ids`` names each row."""
        stretch = np.array([self.spreads.get(name, 1.0) for name in series_ids])
        return interpolate(_stretched(heads, stretch), ndtri(self.levels))


def calibrate(
    heads: Array,
    truth: Array,
    series: NDArray[np.int64],
    names: tuple[str, ...],
    *,
    seed: int,
    prior: Calibration | None = None,
    moments: NDArray[np.int64] | None = None,
) -> Calibration:
    """``heads`` (W, horizon, levels) and ``truth`` (W, horizon, NaN for gaps) of windows the network never trained on;
    window w belongs to ``names[series[w]]``. All three corrections are shrunk when windows are few: towards those of
    ``prior``, else towards "none". ``moments`` (W,): when each window begins, to see which series err together."""
    spreads = {names[i]: _best_spread(heads[series == i], truth[series == i]) for i in np.unique(series)}
    stretched = _stretched(heads, np.array([spreads[names[i]] for i in series]))
    z = normal_scores(stretched, truth, np.random.default_rng(seed))
    scores = np.sort(z[np.isfinite(z)])
    trust = len(heads) / (len(heads) + TRUSTED_WINDOWS)
    before = Z_LEVELS if prior is None else ndtri(prior.levels)
    mapped = (1 - trust) * before + trust * (np.quantile(scores, LEVELS) if scores.size else Z_LEVELS)
    together = 0.0 if moments is None else togetherness(_row_means(z), moments)
    return Calibration(np.asarray(ndtr(mapped), dtype=np.float64), spreads, _correlation(z, prior), together)


def _row_means(z: Array) -> Array:
    """(W,), over what was measured; NaN for a window without."""
    count = np.isfinite(z).sum(axis=1)
    return np.where(count > 0, np.nansum(z, axis=1) / np.maximum(count, 1), np.nan)


def interpolate(heads: Array, z: Array) -> Array:
    """Values at normal scores ``z``: linear between the heads, the last slope beyond them.

    ``heads`` (..., horizon, levels); ``z`` (m,) for the same levels at every step -> (..., horizon, m).
    """
    low, share = _place(z)
    return np.asarray(heads[..., low] + share * (heads[..., low + 1] - heads[..., low]), dtype=np.float64)


def draw_paths(heads: Array, correlation: Array, count: int, seeds: list[int]) -> Array:
    """(B, count, horizon): joint paths whose marginals are the heads exactly (each step uses ``count`` even levels).

    The dependence over time is a Gaussian copula; rows are shuffled by ``seeds`` so that series stay independent.
    """
    horizon = heads.shape[1]
    root = np.linalg.cholesky(correlation[:horizon, :horizon] + 1e-9 * np.eye(horizon))
    normal = np.random.default_rng(count).standard_normal((count, horizon)) @ root.T
    ranks = normal.argsort(axis=0).argsort(axis=0)
    low, share = _place(np.clip(ndtri((ranks + 0.5) / count), -FARTHEST_Z, FARTHEST_Z))
    steps = np.arange(horizon)
    paths = np.empty((len(heads), count, horizon))
    for i, seed in enumerate(seeds):
        rows = np.random.default_rng(seed).permutation(count)
        lower, upper = heads[i][steps, low[rows]], heads[i][steps, low[rows] + 1]
        paths[i] = lower + share[rows] * (upper - lower)
    return paths


def normal_scores(heads: Array, truth: Array, rng: np.random.Generator) -> Array:
    """Where the truth lies in its forecast, as a standard normal score, (W, horizon). Ties are split at random."""
    below = (heads < truth[..., None]).sum(axis=-1)
    upto = (heads <= truth[..., None]).sum(axis=-1)
    place = np.clip(below, 1, len(LEVELS) - 1)
    low = np.take_along_axis(heads, place[..., None] - 1, axis=-1)[..., 0]
    high = np.take_along_axis(heads, place[..., None], axis=-1)[..., 0]
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        share = (truth - low) / (high - low)
        between = Z_LEVELS[place - 1] + share * (Z_LEVELS[place] - Z_LEVELS[place - 1])
    uniform = rng.uniform(size=truth.shape)
    edges = np.concatenate([[-FARTHEST_Z], Z_LEVELS, [FARTHEST_Z]])
    from_level = ndtr(edges[np.where(below > 0, np.minimum(below + 1, len(LEVELS)), 0)])
    to_level = ndtr(edges[np.where(upto < len(LEVELS), upto, len(LEVELS) + 1)])
    tied = ndtri(from_level + uniform * (to_level - from_level))
    scores = np.where((upto > below) | ~np.isfinite(between), tied, between)
    return np.where(np.isfinite(truth), np.clip(scores, -FARTHEST_Z, FARTHEST_Z), np.nan)


def _place(z: Array) -> tuple[NDArray[np.int64], Array]:
    low = np.clip(np.searchsorted(Z_LEVELS, z, side="right") - 1, 0, len(LEVELS) - 2)
    return low, (z - Z_LEVELS[low]) / (Z_LEVELS[low + 1] - Z_LEVELS[low])


def _stretched(heads: Array, stretch: Array) -> Array:
    median = heads[..., MEDIAN : MEDIAN + 1]
    return np.asarray(median + stretch[:, None, None] * (heads - median), dtype=np.float64)


def _best_spread(heads: Array, truth: Array) -> float:
    """The stretch with the lowest pinball loss, and a price on leaving 1 that falls with the number of windows."""
    levels = np.array(LEVELS)
    losses = []
    for spread in SPREADS:
        error = truth[..., None] - _stretched(heads, np.full(len(heads), spread))
        losses.append(np.nansum(np.maximum(levels * error, (levels - 1) * error)))
    loss = np.array(losses)
    if not loss.max() > 0:
        return 1.0
    price = 2 / len(heads) * np.log(SPREADS) ** 2
    return float(SPREADS[np.argmin(loss / loss[SPREADS == 1.0] + price)])


def _correlation(z: Array, prior: Calibration | None) -> Array:
    """Of the normal scores: the measured matrix, shrunk to the prior's (else to one that depends on the distance only)
    where few pairs were measured; positive definite."""
    horizon = z.shape[1]
    centred = np.where(np.isfinite(z), z - np.nanmean(z) if np.isfinite(z).any() else 0.0, 0.0)
    both = np.isfinite(z).astype(np.float64)
    counts = both.T @ both
    covariance = centred.T @ centred / np.maximum(counts, 1)
    deviation = np.sqrt(np.maximum(np.diag(covariance), 1e-6))
    measured = covariance / np.outer(deviation, deviation)
    distance = np.abs(np.subtract.outer(np.arange(horizon), np.arange(horizon)))
    by_distance = np.array([np.mean(np.diagonal(measured, k)) for k in range(horizon)])[distance]
    trust = counts / (counts + 5 * horizon)
    mixed = trust * measured + (1 - trust) * (by_distance if prior is None else prior.correlation[:horizon, :horizon])
    values, vectors = np.linalg.eigh((mixed + mixed.T) / 2)
    definite = (vectors * np.maximum(values, 1e-4)) @ vectors.T
    scale = np.sqrt(np.diag(definite))
    return np.asarray(definite / np.outer(scale, scale), dtype=np.float64)
