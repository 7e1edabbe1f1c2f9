"""Policies by name; each is imported when it is played. A new one is a file and a line here."""

from difflib import get_close_matches
from importlib import import_module

from engine.errors import UsageError
from lab.host import Policy

BASELINES = {
    "peak-on-demand": "lab.policies.peak_on_demand:PeakOnDemand",
    "reactive": "lab.policies.reactive:Reactive",
    "predictive-scale-out": "lab.policies.predictive_scale_out:PredictiveScaleOut",
    "seasonal-quantile": "lab.policies.seasonal_quantile:SeasonalQuantileOnDemand",
    "greedy-spot": "lab.policies.greedy_spot:GreedySpot",
    "spothedge": "lab.policies.spothedge:SpotHedge",
    "uniform-progress": "lab.policies.uniform_progress:UniformProgress",
    "karpenter-balanced": "lab.policies.karpenter_balanced:KarpenterBalanced",
    "quantile-diversified": "lab.policies.quantile_diversified:QuantileDiversified",
}
"""Rules of others: the yardstick. The best of those that keep the risk is "the best baseline"."""
OURS: dict[str, str] = {"shardwright": "lab.policies.shardwright:Shardwright"}
"""Played beside them, never counted among them."""


def names() -> tuple[str, ...]:
    return (*OURS, *BASELINES)


def policy_of(name: str) -> Policy:
    """A fresh one, for one game. UsageError: there is none of that name."""
    where = {**OURS, **BASELINES}.get(name)
    if where is None:
        close = get_close_matches(name, names(), 1)
        raise UsageError(
            f"there is no policy {name!r}" + (f"; did you mean {close[0]!r}?" if close else ""),
            why=f"known are {', '.join(names())}",
            next_step="give some of them with --policies, separated by commas",
        )
    module, kind = where.split(":")
    made: Policy = getattr(import_module(module), kind)()
    return made
