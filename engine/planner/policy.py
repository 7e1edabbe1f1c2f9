"""What the operator allows and prefers; every limit that a plan keeps."""

from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Annotated, Self

from pydantic import Field, model_validator

from engine.model.capacity import Pool, Probability, RiskClass
from engine.model.money import Currency, Money
from engine.model.value import Value

Share = Annotated[float, Field(gt=0, le=1)]
Factor = Annotated[float, Field(ge=0)]


class ScoreWeights(Value):
    """How much performance and reliability count beside cost; 0 means the price alone decides.

    The score of a unit is ``price / performance**performance / survival**reliability`` (weights as exponents), so it
    has the price's unit and scaling every price scales every score.
    """

    performance: Factor = 0.0
    reliability: Factor = 0.0


class MoveTerms(Value):
    """What a live move costs, apart from the price difference it is made for. Amounts are in the policy's currency."""

    expected_stay_hours: Annotated[float, Field(gt=0)] = 24.0
    """For how long the shard will want its new place."""
    egress_gib: Factor = 1.0
    """Disk copied per shard, beside its memory (``InventoryNode.memory_gib``)."""
    egress_price_per_gib: Annotated[Decimal, Field(ge=0)] = Decimal("0.09")
    double_pay_hours: Factor = 0.1
    """Both places are paid while the shard is copied."""
    downtime_cost: Annotated[Decimal, Field(ge=0)] = Decimal("0.0001")
    """What one switchover pause costs the workload."""
    loss_cost: Annotated[Decimal, Field(ge=0)] = Decimal("0.05")
    """What it costs the workload when a place is reclaimed; weighted with the probability that it is."""


class PlanPolicy(Value):
    currency: Currency = "USD"
    """Offers in another currency are refused by name; nothing is converted silently."""
    max_provider_share: Share = 1.0
    """Largest share of the desired shards with one provider (at least one shard each is always allowed); 1: no limit.

    What already runs above the limit is tolerated, never added to.
    """
    max_spot_share: Probability = 1.0
    """Largest share of the desired shards on spot units; 1: no limit."""
    regions: tuple[str, ...] = ()
    """Empty: any."""
    instance_families: tuple[str, ...] = ()
    """Prefixes or glob patterns of instance types (``m7i``, ``e2-*``); empty: any."""
    hourly_budget: Money | None = None
    risk_classes: tuple[RiskClass, ...] = ()
    """Definitions that replace those carried by the pools, by name."""
    weights: ScoreWeights = ScoreWeights()
    shortfall_factor: Factor = 4.0
    """An unserved shard-hour is priced at this many times the cheapest offered shard-hour of its pool."""
    min_move_saving: Factor = 0.05
    """A cost-driven move must save at least this share of what staying would cost, net of every cost of the move."""
    churn_penalty: Factor = 0.1
    """Giving a node up counts this share of its price against the plan, so that equal plans change nothing."""
    moves: MoveTerms = MoveTerms()
    default_spot_survival: Probability = 0.99
    """Per hour, for a running spot node whose quote is no longer known."""
    node_prefix: Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]{0,30}[a-z0-9])?$")] = "sw"
    scenarios: Annotated[int, Field(ge=1, le=4096)] = 256
    """Joint scenarios of demand on which the finished plan is judged; where units may be reclaimed, each of them meets
    several draws of what is, 4,096 in all.
    """
    time_limit_seconds: Annotated[float, Field(ge=0)] = 5.0
    """For all of a plan's solutions together; at 0 the greedy plan is taken."""
    gap: Factor = 0.002
    """Relative gap at which the solver may stop."""

    @model_validator(mode="after")
    def _one_currency(self) -> Self:
        if self.hourly_budget is not None and self.hourly_budget.currency != self.currency:
            raise ValueError(f"hourly_budget is in {self.hourly_budget.currency}, the plan in {self.currency}")
        return self

    def risk_of(self, pool: Pool) -> RiskClass:
        return next((risk for risk in self.risk_classes if risk.name == pool.risk_class.name), pool.risk_class)

    def allows_region(self, region: str) -> bool:
        return not self.regions or region in self.regions

    def allows_instance_type(self, instance_type: str) -> bool:
        return not self.instance_families or any(
            instance_type.startswith(family) or fnmatchcase(instance_type, family) for family in self.instance_families
        )
