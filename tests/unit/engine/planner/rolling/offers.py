"""Offers for the rolling planner's tests."""

from typing import Any

from engine.model.market import PurchaseOption
from engine.planner.rolling.offers import StepOffer


def on_demand(name: str = "od", price: float = 1.0, **more: Any) -> StepOffer:
    return StepOffer(**{"id": name, "option": PurchaseOption.ON_DEMAND, "cell": "aws/x", "shards": 1, "lead": 1,
                        "price": price, **more})  # fmt: skip


def spot(name: str = "spot", price: float = 0.3, free: float = 10.0, **more: Any) -> StepOffer:
    return StepOffer(**{"id": name, "option": PurchaseOption.SPOT, "cell": "gcp/y", "shards": 1, "lead": 1,
                        "price": price, "free_units": free, **more})  # fmt: skip


def commitment(name: str = "com", price: float = 0.6, term: int = 100, **more: Any) -> StepOffer:
    return StepOffer(**{"id": name, "option": PurchaseOption.COMMITMENT, "cell": "aws/x", "shards": 1, "lead": 1,
                        "price": price, "term": term, **more})  # fmt: skip
