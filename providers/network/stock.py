"""What a network has to sell and who has which unit of it.

What is free is never stored: it is counted from the claims, each of which may end by itself. So an expiry cannot be
forgotten and a unit cannot leak.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

from engine.model.capacity import Resources
from engine.model.market import PurchaseOption
from providers.network.wire import MeasuredPerformance, ProblemCode, WireAuctionRule

DEFAULT_INCREMENT = Decimal("0.001")


class Refused(Exception):
    """The network says no; ``detail`` is for the buyer."""

    def __init__(self, code: ProblemCode, detail: str) -> None:
        self.code, self.detail = code, detail
        super().__init__(f"{code}: {detail}")


@dataclass(frozen=True)
class AuctionRules:
    rule: WireAuctionRule
    period_seconds: float = 2.0
    increment: Decimal = DEFAULT_INCREMENT
    """Open ascending: by how much a bid must beat the one it pushes out."""

    def round_at(self, moment: datetime) -> int:
        return int(moment.timestamp() // self.period_seconds)

    def closes_at(self, round_number: int, like: datetime) -> datetime:
        return datetime.fromtimestamp((round_number + 1) * self.period_seconds, like.tzinfo)


@dataclass(frozen=True)
class Listing:
    """One lot of equal units. ``ask`` is the posted price per unit-hour; of an auction it is the reserve price."""

    offer_id: str
    region: str
    zone: str
    instance_type: str
    resources: Resources
    performance: float
    option: PurchaseOption
    ask: Decimal
    units: int
    correlation_group: str
    interruption_per_month: float | None = None
    lowest_share_of_ask: Decimal = Decimal(1)
    """How far a counter-offer goes down: 0.95 means never below 95 % of the ask."""
    measured: MeasuredPerformance | None = None
    starts_within: timedelta = timedelta(seconds=5)
    auction: AuctionRules | None = None


@dataclass
class _Claim:
    units: int
    until: datetime | None


@dataclass
class Lot:
    """A listing with its prices so far and the claims on its units."""

    listing: Listing
    prices: list[tuple[datetime, Decimal]]
    _claims: dict[str, _Claim] = field(default_factory=dict)

    @property
    def ask(self) -> Decimal:
        return self.prices[-1][1]

    def free(self, at: datetime) -> int:
        taken = sum(claim.units for claim in self._claims.values() if claim.until is None or claim.until > at)
        return self.listing.units - taken

    def claim(self, claimant: str, units: int, until: datetime | None, at: datetime) -> None:
        """Take ``units`` for ``claimant`` until then (None: until given back). Raises Refused."""
        self._claims = {key: one for key, one in self._claims.items() if one.until is None or one.until > at}
        free = self.free(at)
        if free < units:
            wanted = "1 unit" if units == 1 else f"{units} units"
            raise Refused(ProblemCode.INSUFFICIENT_CAPACITY, f"{wanted} of {self.listing.offer_id} wanted, {free} free")
        self._claims[claimant] = _Claim(units, until)

    def give_back(self, claimant: str, units: int | None = None) -> None:
        """All that ``claimant`` has, or some of it; nothing to give back is fine."""
        claim = self._claims.get(claimant)
        if claim is None:
            return
        claim.units -= claim.units if units is None else units
        if claim.units <= 0:
            del self._claims[claimant]

    def keep_until(self, claimant: str, until: datetime | None) -> None:
        if claimant in self._claims:
            self._claims[claimant].until = until


def lots(listings: Sequence[Listing], now: datetime) -> dict[str, Lot]:
    """By offer id. Raises ValueError on an id used twice."""
    found = {listing.offer_id: Lot(listing, [(now, listing.ask)]) for listing in listings}
    if len(found) != len(listings):
        raise ValueError("two listings share an offer id")
    return found
