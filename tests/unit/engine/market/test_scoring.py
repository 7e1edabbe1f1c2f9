import pytest
from pydantic import ValidationError

from engine.market.scoring import ScoreWeights, expected_price, price_per_slice, rank, survival
from engine.model.capacity import Resources
from engine.model.market import PurchaseOption, Reliability
from engine.model.money import usd
from tests.unit.engine.market.counterparties import a_need, an_offer

CHEAP = an_offer("cheap", price="0.05", reliability=Reliability(correlation_group="g", interruption_per_month=0.5))
FAST = an_offer("fast", price="0.20", performance=2.0)
SAFE = an_offer("safe", price="0.10", reliability=Reliability(correlation_group="g", interruption_per_month=0.0))


@pytest.mark.parametrize(
    ("weights", "best"),
    [
        (ScoreWeights(cost=1, performance=0, reliability=0), "cheap"),
        (ScoreWeights(cost=0, performance=1, reliability=0), "fast"),
        (ScoreWeights(cost=0, performance=0, reliability=1), "safe"),
    ],
)
def test_the_weights_decide(weights: ScoreWeights, best: str) -> None:
    assert rank([CHEAP, FAST, SAFE], a_need(hours=720), weights)[0].offer.id == best


def test_parts_and_score_lie_on_one_scale() -> None:
    for scored in rank([CHEAP, FAST, SAFE], a_need(), ScoreWeights()):
        assert all(0 <= part <= 1 for part in (scored.cost, scored.performance, scored.reliability, scored.score))
    assert rank([SAFE], a_need(), ScoreWeights(cost=5, performance=5, reliability=5))[0].score == pytest.approx(1)


def test_compares_prices_per_slice() -> None:
    big = an_offer("big", price="0.16", vcpus=8, memory_gib=16)
    assert rank([CHEAP, big], a_need(), ScoreWeights(cost=1, performance=0, reliability=0))[0].offer.id == "big"
    assert price_per_slice(big, Resources(vcpus=2, memory_gib=8)) == pytest.approx(0.08)
    assert price_per_slice(big, Resources(vcpus=16, memory_gib=8)) is None


def test_what_does_not_carry_a_slice_is_left_out() -> None:
    need = a_need().model_copy(update={"slice": Resources(vcpus=4, memory_gib=1)})
    assert rank([CHEAP], need, ScoreWeights()) == ()


def test_survival_compounds_over_months() -> None:
    assert survival(CHEAP, 0) == 1
    assert survival(CHEAP, 730) == pytest.approx(0.5)
    assert survival(CHEAP, 1460) == pytest.approx(0.25)
    unpublished = an_offer(option=PurchaseOption.SPOT)
    assert survival(unpublished, 730) < survival(an_offer(), 730)


def test_an_auction_is_expected_to_cost_its_usual_clearing_price() -> None:
    auction = an_offer(option=PurchaseOption.AUCTION, price="0.02", history=[(3, "0.05"), (2, "0.04"), (1, "0.09")])
    assert expected_price(auction) == usd("0.05")
    assert expected_price(auction.model_copy(update={"price": usd("0.07")})) == usd("0.07")
    assert expected_price(auction.model_copy(update={"price_history": ()})) == usd("0.02")


def test_something_must_count() -> None:
    with pytest.raises(ValidationError):
        ScoreWeights(cost=0, performance=0, reliability=0)
