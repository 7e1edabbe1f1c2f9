"""Seasonal-naive quantiles on on-demand units: sizing by risk, as robust autoscaling proposes (Robust auto-scaling,
ICDE 2024; MagicScaler, VLDB 2023), with the plainest forecast that has quantiles.
"""

from lab.policies.on_demand import OnDemandPolicy
from lab.policies.sizing import QuantileOf, SeasonalNaive


class SeasonalQuantileOnDemand(OnDemandPolicy):
    def __init__(self) -> None:
        super().__init__(QuantileOf(SeasonalNaive))
