from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal

import pytest

from engine.errors import InsufficientCapacity, PriceMismatch, ProviderUnavailable
from engine.market.base import ONE_VCPU, Declined
from engine.market.spot import SpotStrategy, ceiling_that_held, highest_in_each_window, on_demand_price
from engine.model.market import Offer, PurchaseOption, Quote, Reliability
from engine.model.money import usd
from engine.model.value import Interval
from tests.unit.engine.market.counterparties import (
    NOW,
    Cheat,
    Honest,
    Silent,
    Stubborn,
    a_market,
    a_need,
    a_quote,
    an_offer,
)

ON_DEMAND = an_offer("od", price="0.10")
CERTAIN = Reliability(correlation_group="g", interruption_per_month=0.0)


def spot(price: str = "0.03", history: Sequence[tuple[float, str]] = ()) -> Offer:
    return an_offer("spot", price=price, option=PurchaseOption.SPOT, history=history, reliability=CERTAIN)


def _quote(offer: Offer, *, hours: float, survival: float = 0.9, others: tuple[Offer, ...] = (ON_DEMAND,)) -> Quote:
    (quote,) = SpotStrategy().negotiate(
        a_need(hours=hours, survival=survival), [offer], a_market(Honest(), offers=(offer, *others))
    )
    return quote


def test_a_flat_history_gives_todays_price_for_a_ceiling() -> None:
    quote = _quote(spot(history=[(200, "0.03")]), hours=10)
    assert quote.price_ceiling == usd("0.03")
    assert quote.survival == 1.0


def test_the_ceiling_held_for_the_wanted_time_with_the_wanted_probability() -> None:
    # 100 hours: one hour at 0.06 every 20 hours. A 5-hour window meets a peak about 30 % of the time.
    history = [point for h in range(100, 0, -20) for point in ((h, "0.03"), (h - 10, "0.06"), (h - 11, "0.03"))]
    often = _quote(spot(history=history), hours=5, survival=0.5)
    nearly_always = _quote(spot(history=history), hours=5, survival=0.95)
    assert often.price_ceiling == usd("0.03")
    assert often.survival == pytest.approx(0.7, abs=0.06)
    assert nearly_always.price_ceiling == usd("0.06")
    assert nearly_always.survival == 1.0


def test_never_above_on_demand() -> None:
    history = [(100.0, "0.03"), (50, "0.50"), (40, "0.03")]
    quote = _quote(spot(history=history), hours=10, survival=0.99)
    assert quote.price_ceiling == ON_DEMAND.price
    assert quote.survival == pytest.approx(1 - 20 / 90, abs=0.03)


def test_a_spot_price_above_on_demand_is_passed_on() -> None:
    with pytest.raises(Declined, match="dearer than on demand"):
        _quote(spot("0.11"), hours=10)


def test_a_history_shorter_than_the_term_says_nothing() -> None:
    assert highest_in_each_window(spot(history=[(5, "0.03")]), NOW, timedelta(hours=10)) == ()
    assert _quote(spot(history=[(5, "0.03")]), hours=10).price_ceiling == ON_DEMAND.price
    assert _quote(spot(), hours=10, others=()).price_ceiling == usd("0.03")


def test_on_demand_of_the_same_machine_else_of_the_same_size() -> None:
    other_type = an_offer("other", price="0.30", vcpus=8, instance_type="t.large", provider="q")
    assert on_demand_price(spot(), [ON_DEMAND, other_type], ONE_VCPU) == usd("0.10")
    assert on_demand_price(spot(), [other_type], ONE_VCPU) == usd("0.075")
    assert on_demand_price(spot(), [an_offer("eur", currency="EUR")], ONE_VCPU) is None


def test_capacity_reclaims_lower_survival() -> None:
    shaky = spot(history=[(200, "0.03")]).model_copy(
        update={"reliability": Reliability(correlation_group="g", interruption_per_month=0.5)}
    )
    assert _quote(shaky, hours=73).survival == pytest.approx(0.5**0.1)


def test_windows_see_the_price_in_force_when_they_start() -> None:
    offer = spot(history=[(20, "0.09"), (10, "0.02")])
    maxima = highest_in_each_window(offer, NOW, timedelta(hours=5))
    assert maxima[0] == Decimal("0.09")
    assert maxima[-1] == Decimal("0.02")
    assert ceiling_that_held(offer, maxima, 0.0, None) == usd("0.03"), "never below today's price"


def test_todays_price_above_the_level_that_held_is_the_ceiling() -> None:
    assert ceiling_that_held(spot("0.08"), [Decimal("0.03")] * 10, 0.9, usd("0.10")) == usd("0.08")


@pytest.mark.parametrize(
    ("counterparty", "error"),
    [(Stubborn(), InsufficientCapacity), (Silent(), ProviderUnavailable), (Cheat(), PriceMismatch)],
)
def test_what_goes_wrong_has_a_name(counterparty: Honest, error: type[Exception]) -> None:
    offer = spot(history=[(200, "0.03")])
    with pytest.raises(error):
        SpotStrategy().negotiate(a_need(hours=10), [offer], a_market(counterparty, offers=(offer,)))


def test_a_price_that_moved_under_the_ceiling_is_fine() -> None:
    class Moved(Honest):
        def quote(self, offer: Offer, quantity: int, term: Interval) -> Quote:
            return a_quote(offer, quantity, term, usd("0.05"))

    offer = spot(history=[(100, "0.03"), (50, "0.06"), (40, "0.03")])
    (quote,) = SpotStrategy().negotiate(a_need(hours=10, survival=0.99), [offer], a_market(Moved(), offers=(offer,)))
    assert (quote.unit_price, quote.price_ceiling) == (usd("0.05"), usd("0.06"))
