"""Predictive scaling as the clouds sell it: AWS predictive scaling, Azure VMSS predictive autoscale.

The greater of reactive scaling and a point forecast from the last days' same time of day (AWS: 14 days of history,
hourly load). The forecast only ever scales out; the headroom is the "buffer" of their documents.
"""

from lab.policies.on_demand import OnDemandPolicy
from lab.policies.sizing import LastOrSameTimeOfDay, QuantileOf


class PredictiveScaleOut(OnDemandPolicy):
    def __init__(self) -> None:
        super().__init__(QuantileOf(LastOrSameTimeOfDay))
