"""Whole-number money equals decimal money, line by line."""

from decimal import ROUND_HALF_EVEN, Decimal, localcontext

from hypothesis import given
from hypothesis import strategies as st

from lab.amounts import Scale, rounded_half_even, to_usd

prices = st.decimals(min_value=0, max_value=100_000, places=12).map(lambda price: price.normalize())


@given(prices, st.integers(0, 1_000_000), st.integers(1, 1440))
def test_a_line_is_the_decimal_product_rounded_half_even(price: Decimal, units: int, minutes: int) -> None:
    scale = Scale([price], minutes)
    with localcontext(prec=60):
        expected = (units * price * minutes / 60).quantize(Decimal("1e-9"), rounding=ROUND_HALF_EVEN)
    assert to_usd(scale.unit_steps(units, scale.whole(price))) == expected


@given(prices, st.integers(0, 100_000))
def test_so_is_a_line_of_moves(price: Decimal, moved: int) -> None:
    scale = Scale([price, Decimal("0.5")], 60)
    with localcontext(prec=60):
        expected = (moved * price).quantize(Decimal("1e-9"), rounding=ROUND_HALF_EVEN)
    assert to_usd(scale.pieces(moved, scale.whole(price))) == expected


def test_ties_go_to_the_even_neighbour() -> None:
    assert [rounded_half_even(n, 2) for n in (1, 3, 5, 7)] == [0, 2, 2, 4]
