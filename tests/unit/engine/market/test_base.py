import pytest

from engine.clock import ManualClock
from engine.errors import PriceMismatch, QuoteExpired
from engine.market.base import Declined, ShardsWanted, checked, units_wanted
from engine.model.capacity import Resources
from engine.model.market import Quote
from engine.model.money import Money, usd
from tests.unit.engine.market.counterparties import NOW, a_need, a_quote, an_offer


def test_no_more_units_than_are_on_offer() -> None:
    assert units_wanted(a_need(units=5), an_offer(available=2)) == 2
    assert units_wanted(a_need(units=5), an_offer(available=9)) == 5
    assert units_wanted(a_need(units=5), an_offer(available=None)) == 5
    with pytest.raises(Declined):
        units_wanted(a_need(), an_offer(available=0))


def test_of_large_units_no_more_than_a_plan_could_take() -> None:
    """Nine shards of one vCPU, and twice that for what is reclaimed: five units of four."""
    wanted = (ShardsWanted(slice=Resources(vcpus=1, memory_gib=1), count=9),)
    need = a_need(units=9).model_copy(update={"shards": wanted})
    assert units_wanted(need, an_offer(available=None, vcpus=4, memory_gib=16)) == 5
    assert units_wanted(need, an_offer(available=None, vcpus=1, memory_gib=1)) == 9
    assert units_wanted(need, an_offer(available=3, vcpus=4, memory_gib=16)) == 3


def test_what_no_pool_fits_on_is_asked_for_once() -> None:
    wanted = (ShardsWanted(slice=Resources(vcpus=64, memory_gib=1), count=9),)
    assert units_wanted(a_need(units=9).model_copy(update={"shards": wanted}), an_offer(available=None)) == 1


def _checked(quote: Quote, units: int = 3, ceiling: Money | None = None) -> Quote:
    return checked(
        quote,
        an_offer(),
        units,
        strategy="s",
        ceiling=ceiling or usd("0.10"),
        survival=0.5,
        clock=ManualClock(NOW),
    )


def test_a_checked_quote_carries_strategy_ceiling_and_survival() -> None:
    quote = _checked(a_quote(an_offer(), 3, a_need().term, usd("0.09")))
    assert (quote.strategy, quote.price_ceiling, quote.survival, quote.unit_price) == (
        "s",
        usd("0.10"),
        0.5,
        usd("0.09"),
    )


@pytest.mark.parametrize(
    "price", [usd("0.11"), usd("0"), usd("-0.01"), Money(amount=usd("0.05").amount, currency="EUR")]
)
def test_a_price_that_was_not_agreed(price: Money) -> None:
    with pytest.raises(PriceMismatch):
        _checked(a_quote(an_offer(), 3, a_need().term, price))


def test_another_thing_or_more_units() -> None:
    with pytest.raises(PriceMismatch):
        _checked(a_quote(an_offer("another"), 3, a_need().term, usd("0.05")))
    with pytest.raises(PriceMismatch):
        _checked(a_quote(an_offer(), 4, a_need().term, usd("0.05")))
    assert _checked(a_quote(an_offer(), 2, a_need().term, usd("0.05"))).quantity == 2


def test_a_quote_that_came_too_late() -> None:
    with pytest.raises(QuoteExpired):
        _checked(a_quote(an_offer(), 3, a_need().term, usd("0.05"), lasts=0))
