"""What running instances have used and what that costs, cut where the price changed and at the rows' time grain."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from itertools import pairwise

from engine.clock import Clock
from engine.model.value import Interval
from providers.sandbox.machines import Machine
from providers.sandbox.prices import PriceBoard, PriceKey

_ROW_QUANTUM = Decimal("0.000000001")
_CENT = Decimal("0.01")


@dataclass(frozen=True)
class Usage:
    """One instance at one price from ``start`` to ``end`` (real time); ``hours`` are metered hours."""

    machine: Machine
    start: datetime
    end: datetime
    hours: Decimal
    unit_price: Decimal
    """Per metered hour of one unit."""

    def cost(self, units: Decimal | int = 1) -> Decimal:
        """Hours times price times units, to a billionth of the currency."""
        return (self.hours * self.unit_price * units).quantize(_ROW_QUANTUM, rounding=ROUND_HALF_EVEN)


@dataclass(frozen=True)
class Meter:
    """``speed`` metered hours pass in one real hour."""

    board: PriceBoard
    clock: Clock
    speed: Decimal

    def hours(self, start: datetime, end: datetime) -> Decimal:
        microseconds = (end - start) // timedelta(microseconds=1)
        return (Decimal(microseconds) * self.speed / Decimal(3_600_000_000)).quantize(_ROW_QUANTUM)

    def usage(self, machine: Machine, key: PriceKey, period: Interval, grain: timedelta) -> list[Usage]:
        """The instance's time within the period, in pieces of one price that do not cross a multiple of ``grain``."""
        now = self.clock.now()
        start = max(machine.runs_from, period.start)
        end = min(machine.ended_at(now) or now, period.end)
        if end <= start:
            return []
        prices = self.board.changes(key, start, end)
        cuts = sorted({start, end, *(at for at, _ in prices if at > start), *_multiples(start, end, grain)})
        pieces = []
        for piece_start, piece_end in pairwise(cuts):
            price = next((price for at, price in reversed(prices) if at <= piece_start), prices[0][1])
            pieces.append(Usage(machine, piece_start, piece_end, self.hours(piece_start, piece_end), price))
        return pieces


def invoice_total(rows: Decimal) -> Decimal:
    """What an invoice in dollars can ask for: the rows' sum to the cent. The difference is a rounding row."""
    return rows.quantize(_CENT, rounding=ROUND_HALF_EVEN)


def _multiples(start: datetime, end: datetime, grain: timedelta) -> list[datetime]:
    midnight = start.replace(hour=0, minute=0, second=0, microsecond=0)
    moment = midnight + grain * ((start - midnight) // grain + 1)
    found = []
    while moment < end:
        found.append(moment)
        moment += grain
    return found
