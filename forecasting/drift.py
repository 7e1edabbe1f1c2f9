"""Whether the network still fits what it forecasts: what it lost lately beside seasonal naive."""

from collections.abc import Sequence

from engine.model.value import Value
from forecasting.champion import Choice
from forecasting.losses import geometric_mean
from forecasting.selection import RNN

REFERENCE = "seasonal_naive"
DRIFTED = 1.0
"""A network that loses as much as seasonal naive has nothing to add."""


class Drift(Value):
    """``ratio``: geometric mean over ``series`` of the network's WQL / seasonal naive's on recent origins.

    ``worst``: the series where the network does worst, up to five of those above 1, the worst first.
    """

    ratio: float
    series: int
    worst: tuple[str, ...]

    @property
    def drifted(self) -> bool:
        return self.ratio > DRIFTED


def drift_of(choices: Sequence[Choice]) -> Drift | None:
    """None where no series was scored with both."""
    ratios = {
        choice.series_id: own / naive
        for choice in choices
        if (own := choice.wql_of(RNN)) and (naive := choice.wql_of(REFERENCE))
    }
    if not ratios:
        return None
    lost = sorted((name for name in ratios if ratios[name] > DRIFTED), key=lambda name: -ratios[name])
    return Drift(ratio=geometric_mean(list(ratios.values())), series=len(ratios), worst=tuple(lost[:5]))
