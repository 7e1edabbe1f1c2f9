"""What a negotiation works with: the need, the market, the strategy seam, and the checks no quote escapes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from random import Random
from typing import Annotated, Protocol

from pydantic import Field

from engine.clock import Clock
from engine.errors import PriceMismatch, QuoteExpired
from engine.model.capacity import Probability, Resources
from engine.model.market import Offer, Quote
from engine.model.money import Money
from engine.model.value import Interval, Value
from providers.base import Provider

ONE_VCPU = Resources(vcpus=1, memory_gib=0)
SPARE = 2
"""Times what is needed: as much of one offer as a plan may take, since what is reclaimed is bought beforehand."""


class ShardsWanted(Value):
    """What one pool asks for."""

    slice: Resources
    count: Annotated[int, Field(ge=0)]


class Need(Value):
    """What is bought for, whatever the pool."""

    key: Annotated[str, Field(min_length=1)]
    """Root of every idempotency key: the same round asks under the same key, so a resumed one does not bid twice."""
    max_units: Annotated[int, Field(gt=0)]
    """Units of one offer at most."""
    shards: tuple[ShardsWanted, ...] = ()
    """What the units are for, where it is known: so many more than they can carry are not asked for."""
    term: Interval
    survival: Probability = 0.9
    """Wanted probability that a unit is still there at the end of the term."""
    slice: Resources = ONE_VCPU
    """What units are cut into: offers are compared by price per slice."""
    spot_substitutes: bool = True
    """False where policy caps spot: the next unit's alternative is then a firm one, whatever spot costs."""


class Declined(Exception):
    """``reason`` is for the why-not column."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class Market(Protocol):
    """What a strategy may use. ``offers`` is everything on the market, for comparison."""

    @property
    def providers(self) -> Mapping[str, Provider]: ...

    @property
    def offers(self) -> Sequence[Offer]: ...

    @property
    def clock(self) -> Clock: ...

    @property
    def rng(self) -> Random: ...


@dataclass(frozen=True)
class LiveMarket:
    """Providers by their configured names."""

    providers: Mapping[str, Provider]
    clock: Clock
    rng: Random
    offers: Sequence[Offer] = ()


class Strategy(Protocol):
    """One way to buy; one file each.

    ``negotiate`` gets firm quotes for the offers it is made for and leaves the others alone. It raises what the
    provider raises (the caller knows what to do about it), PriceMismatch when a price is not what it should be, and
    Declined where it passes on an offer. It must not change anything at the provider that costs money.
    """

    name: str

    def negotiate(self, need: Need, offers: Sequence[Offer], market: Market) -> Sequence[Quote]: ...


def units_wanted(need: Need, offer: Offer) -> int:
    """As many as are needed and on offer. Raises Declined when there are none.

    Asking for more than would ever be bought runs into quotas, and what is refused is then believed to be scarce.
    """
    carried = [(one.count, offer.resources.holds(one.slice)) for one in need.shards]
    useful = sum(ceil(SPARE * count / each) for count, each in carried if each)
    wanted = min(need.max_units, max(1, useful)) if need.shards else need.max_units
    if offer.available is not None:
        wanted = min(wanted, offer.available)
    if wanted < 1:
        raise Declined("no unit on offer")
    return wanted


def checked(
    quote: Quote, offer: Offer, units: int, *, strategy: str, ceiling: Money, survival: float, clock: Clock
) -> Quote:
    """The quote under its strategy's name, with ceiling and survival, if it is what was asked for.

    Raises PriceMismatch (another thing, more units, another currency, no price, above the ceiling) and QuoteExpired.
    """
    price = quote.unit_price
    if quote.offer.id != offer.id or not 1 <= quote.quantity <= units:
        raise PriceMismatch(f"asked for {units} of {offer.id}, quoted {quote.quantity} of {quote.offer.id}")
    if price.currency != ceiling.currency or price.amount <= 0 or ceiling < price:
        raise PriceMismatch(f"{offer.id}: asked to pay {price} where at most {ceiling} was agreed")
    if quote.expires_at <= clock.now():
        raise QuoteExpired(f"{offer.id}: the quote had expired when it came")
    return Quote(
        id=quote.id,
        offer=offer,
        quantity=quote.quantity,
        unit_price=price,
        price_ceiling=ceiling,
        term=quote.term,
        expires_at=quote.expires_at,
        strategy=strategy,
        survival=survival,
        proof=quote.proof,
    )
