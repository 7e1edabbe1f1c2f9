"""Money: a Decimal with a currency. Never a float, never two currencies in one sum."""

from collections.abc import Iterable
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Annotated, Self

from pydantic import Field

from engine.model.value import Value

Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
"""ISO 4217 code."""

_MINOR_UNITS = {"JPY": 0, "KRW": 0, "CLP": 0, "ISK": 0, "VND": 0, "BHD": 3, "KWD": 3, "JOD": 3, "OMR": 3, "TND": 3}


class Money(Value):
    """An exact amount in one currency."""

    amount: Decimal
    currency: Currency = "USD"

    def __add__(self, other: "Money") -> "Money":
        self._same_currency(other)
        return Money(amount=self.amount + other.amount, currency=self.currency)

    def __sub__(self, other: "Money") -> "Money":
        self._same_currency(other)
        return Money(amount=self.amount - other.amount, currency=self.currency)

    def __mul__(self, factor: Decimal | int) -> "Money":
        return Money(amount=self.amount * factor, currency=self.currency)

    def __lt__(self, other: "Money") -> bool:
        self._same_currency(other)
        return self.amount < other.amount

    def __le__(self, other: "Money") -> bool:
        self._same_currency(other)
        return self.amount <= other.amount

    def __str__(self) -> str:
        return f"{self.amount:f} {self.currency}"

    def to_minor_units(self) -> "Money":
        """Rounded half-even to what an invoice in this currency can show (USD: cents, JPY: whole yen)."""
        places = _MINOR_UNITS.get(self.currency, 2)
        step = Decimal(1).scaleb(-places)
        return Money(amount=self.amount.quantize(step, rounding=ROUND_HALF_EVEN), currency=self.currency)

    def _same_currency(self, other: "Money") -> None:
        if self.currency != other.currency:
            raise ValueError(f"cannot combine {self.currency} with {other.currency}")

    @classmethod
    def zero(cls, currency: str = "USD") -> Self:
        return cls(amount=Decimal(0), currency=currency)

    @classmethod
    def total(cls, amounts: Iterable["Money"], currency: str = "USD") -> "Money":
        result: Money = cls.zero(currency)
        for amount in amounts:
            result = result + amount
        return result

    @classmethod
    def totals(cls, amounts: Iterable["Money"]) -> tuple["Money", ...]:
        """One sum per currency, by its code."""
        sums: dict[str, Money] = {}
        for amount in amounts:
            sums[amount.currency] = sums.get(amount.currency, cls.zero(amount.currency)) + amount
        return tuple(sums[currency] for currency in sorted(sums))


def usd(amount: str | int | Decimal) -> Money:
    """Dollars from an exact literal."""
    return Money(amount=Decimal(amount), currency="USD")
