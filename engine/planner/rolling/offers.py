"""What one fleet can buy in a step, priced as a step prices it."""

from dataclasses import dataclass

from engine.model.market import PurchaseOption


@dataclass(frozen=True)
class StepOffer:
    """Prices are per step and shard, in one currency, as floats: this ranks; the bill counts in decimals."""

    id: str
    option: PurchaseOption
    cell: str
    shards: int
    """Of this fleet, in one unit."""
    lead: int
    """Steps from the order to the arrival."""
    price: float
    reclaim_rate: float = 0.0
    """Expected share of the shards that is reclaimed in a step."""
    free_units: float = float("inf")
    """Believed to be granted beyond what is held."""
    asked_lately: bool = False
    """The belief about free units is fresh."""
    term: int = 0
    """Steps that a commitment lasts."""

    @property
    def spot(self) -> bool:
        return self.option is PurchaseOption.SPOT

    def cost(self, move_cost: float) -> float:
        """Price with the moves that reclaims will cause."""
        return self.price + self.reclaim_rate * move_cost
