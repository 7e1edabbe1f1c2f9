"""Exact sums of money as whole numbers: lines in nano-dollars (1e-9 USD), as the rules round them.

Decimal objects would be exact too, but the replay's inner loop makes a line per holding and step.
"""

from collections.abc import Iterable
from decimal import Decimal

NANO_DIGITS = 9


def rounded_half_even(numerator: int, denominator: int) -> int:
    """``numerator / denominator`` (both not negative) to the nearest whole number, ties to the even one."""
    whole, rest = divmod(numerator, denominator)
    twice = 2 * rest
    return whole + 1 if twice > denominator or (twice == denominator and whole & 1) else whole


def to_usd(nano: int) -> Decimal:
    return Decimal(nano).scaleb(-NANO_DIGITS)


class Scale:
    """One power of ten for every price of a case, so that each is a whole number; at least nano-dollars."""

    def __init__(self, prices: Iterable[Decimal], step_minutes: int) -> None:
        self.digits = max((NANO_DIGITS, *(-int(price.as_tuple().exponent) for price in prices)))
        self._minutes = step_minutes
        self._excess = 10 ** (self.digits - NANO_DIGITS)
        self._hour = 60 * self._excess

    def whole(self, price: Decimal) -> int:
        return int(price.scaleb(self.digits))

    def unit_steps(self, count: int, price: int) -> int:
        """Nano-dollars of ``count`` unit-steps at ``price`` (scaled, per unit-hour)."""
        return rounded_half_even(count * price * self._minutes, self._hour)

    def pieces(self, count: int, price: int) -> int:
        """Nano-dollars of ``count`` pieces at ``price`` (scaled, each)."""
        return rounded_half_even(count * price, self._excess)
