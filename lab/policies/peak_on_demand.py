"""Peak on demand: what an operator without an autoscaler does. The highest demand ever seen, on on-demand units."""

from lab.policies.on_demand import OnDemandPolicy
from lab.policies.sizing import Peak


class PeakOnDemand(OnDemandPolicy):
    def __init__(self) -> None:
        super().__init__(Peak())
