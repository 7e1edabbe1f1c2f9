from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.model.money import Money, usd

amounts = st.decimals(min_value=-(10**9), max_value=10**9, places=9).map(lambda amount: Money(amount=amount))


@given(amounts, amounts)
def test_adding_and_taking_away_is_exact(a: Money, b: Money) -> None:
    assert (a + b) - b == a


@given(amounts)
def test_rounding_moves_less_than_half_a_cent(a: Money) -> None:
    assert abs((a.to_minor_units() - a).amount) <= Decimal("0.005")


def test_two_currencies_are_never_combined() -> None:
    with pytest.raises(ValueError, match="USD with EUR"):
        usd("1") + Money(amount=Decimal(1), currency="EUR")
    with pytest.raises(ValueError, match="USD with EUR"):
        _ = usd("1") < Money(amount=Decimal(1), currency="EUR")


@pytest.mark.parametrize(("currency", "rounded"), [("USD", "1.24"), ("JPY", "1"), ("KWD", "1.235")])
def test_the_minor_unit_is_the_currencys(currency: str, rounded: str) -> None:
    assert Money(amount=Decimal("1.2350"), currency=currency).to_minor_units().amount == Decimal(rounded)


def test_a_float_is_no_amount() -> None:
    with pytest.raises(ValueError, match="amount"):
        Money(amount=0.1)  # type: ignore[arg-type]
