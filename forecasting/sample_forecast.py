"""A forecast held as joint sample paths."""

from datetime import datetime, timedelta
from math import ceil

import numpy as np

from forecasting.base import Array

TOLERANCE = 1e-9
"""Relative slack when a path is compared with a threshold: 0.1 + 0.2 needs 0.3."""


class SampleForecast:
    """``paths`` has shape (n, horizon), in the history's units; each row is one possible future. ``whole``: paths and
    quantiles are rounded to whole numbers."""

    def __init__(
        self,
        series_id: str,
        start: datetime,
        freq: timedelta,
        paths: Array,
        forecaster: str,
        *,
        seed: int = 0,
        whole: bool = False,
    ) -> None:
        if paths.ndim != 2 or not paths.size or not np.isfinite(paths).all():
            raise ValueError(f"paths must be finite with shape (n, horizon), got {paths.shape}")
        self.series_id, self.start, self.freq, self.forecaster = series_id, start, freq, forecaster
        self.horizon, self.whole = paths.shape[1], whole
        self._paths, self._seed = np.rint(paths) if whole else paths, seed
        self._sorted = np.sort(self._paths, axis=0)

    @property
    def held(self) -> int:
        """How many paths there are."""
        return len(self._paths)

    def quantile(self, q: float) -> Array:
        """Shape (horizon,), interpolated between the ordered samples (Hazen), so it is monotone in q."""
        if not 0 <= q <= 1:
            raise ValueError(f"a quantile lies between 0 and 1, got {q}")
        n = len(self._sorted)
        place = min(max(q * n - 0.5, 0.0), n - 1.0)
        low = int(place)
        below, above = self._sorted[low], self._sorted[min(low + 1, n - 1)]
        found = np.clip(below + (place - low) * (above - below), below, above)
        return np.asarray(np.rint(found) if self.whole else found, dtype=np.float64)

    def in_whole_numbers(self) -> "SampleForecast":
        return SampleForecast(
            self.series_id, self.start, self.freq, self._paths, self.forecaster, seed=self._seed, whole=True
        )

    def sample_paths(self, n: int) -> Array:
        """Shape (n, horizon). Fewer than held: a random subset; more: all of them, again and again in random order."""
        if n < 1:
            raise ValueError(f"at least one path, got {n}")
        held = len(self._paths)
        rng = np.random.default_rng([self._seed, n])
        rounds = [rng.permutation(held) for _ in range(ceil(n / held))]
        chosen: Array = self._paths[np.concatenate(rounds)[:n]]
        return chosen

    def maxima(self, within: timedelta) -> Array:
        """Shape (n,): each path's maximum over the steps that start within ``within`` (at least the first one)."""
        steps = min(max(ceil(within / self.freq - TOLERANCE), 1), self.horizon)
        peak: Array = self._paths[:, :steps].max(axis=1)
        return peak

    def probability_of_needing(self, additional: float, within: timedelta, *, current: float) -> float:
        """Share of paths whose maximum within the window reaches current + additional."""
        if within > self.horizon * self.freq:
            raise ValueError(f"the forecast reaches {self.horizon * self.freq}, asked for {within}")
        threshold = current + additional
        return float(np.mean(self.maxima(within) >= threshold - TOLERANCE * abs(threshold)))
