"""Reactive with headroom: the Kubernetes horizontal autoscaler and its kin.

Next step's capacity is this step's demand and headroom: a quantile of the rises seen so far.
"""

from lab.policies.on_demand import OnDemandPolicy
from lab.policies.sizing import Last, QuantileOf


class Reactive(OnDemandPolicy):
    def __init__(self) -> None:
        super().__init__(QuantileOf(Last))
