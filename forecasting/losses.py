"""How good a forecast was. NaN in the truth counts for nothing."""

from collections.abc import Sequence

import numpy as np

from forecasting.base import Array, Forecast

DECILES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def pinball(truth: Array, predicted: Array, q: float) -> Array:
    """Elementwise quantile loss, in the units of ``truth``."""
    error = truth - predicted
    return np.maximum(q * error, (q - 1) * error)


def quantile_loss(truth: Array, forecast: Forecast, quantiles: Sequence[float] = DECILES) -> float:
    """Twice the pinball loss, summed over the measured steps and averaged over the quantiles (units of ``truth``)."""
    return float(np.mean([2 * np.nansum(pinball(truth, forecast.quantile(q), q)) for q in quantiles]))


def weighted_quantile_loss(losses: Sequence[float], truths: Sequence[Array]) -> float:
    """WQL: the windows' ``quantile_loss`` / their sum of |truth|. All-zero truth: 0 if nothing was lost, else inf."""
    weight = float(sum(np.nansum(np.abs(truth)) for truth in truths))
    lost = float(sum(losses))
    if weight > 0:
        return lost / weight
    return 0.0 if lost <= 0 else float("inf")


def geometric_mean(values: Sequence[float]) -> float:
    """NaN when there are no values."""
    return float(np.exp(np.mean(np.log(values)))) if len(values) else float("nan")
