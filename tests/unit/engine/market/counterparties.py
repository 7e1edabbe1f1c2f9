"""Offers, and providers of several characters to negotiate with."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random

from engine.clock import ManualClock
from engine.errors import InsufficientCapacity, ProviderUnavailable
from engine.market.base import LiveMarket, Need
from engine.model.capacity import Resources
from engine.model.ids import OfferId, QuoteId
from engine.model.market import Offer, OfferQuery, PricePoint, PurchaseOption, Quote, Reliability
from engine.model.money import Money, usd
from engine.model.value import Interval
from providers.base import AuctionOutcome, AuctionRule, AuctionTerms, Provider, RfqAnswer, RfqReply

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
QUERY = OfferQuery(at_least=Resources(vcpus=1, memory_gib=1))


def an_offer(
    name: str = "o1",
    *,
    provider: str = "p",
    price: str = "0.10",
    currency: str = "USD",
    option: PurchaseOption = PurchaseOption.ON_DEMAND,
    vcpus: float = 2,
    memory_gib: float = 4,
    history: Sequence[tuple[float, str]] = (),
    **fields: object,
) -> Offer:
    """``history``: (hours ago, price)."""
    values: dict[str, object] = {
        "id": OfferId(name),
        "provider": provider,
        "account": "a",
        "region": "r",
        "zone": "z",
        "instance_type": "t.small",
        "resources": Resources(vcpus=vcpus, memory_gib=memory_gib),
        "option": option,
        "price": Money(amount=Decimal(price), currency=currency),
        "price_at": NOW,
        "price_history": tuple(PricePoint(at=NOW - timedelta(hours=h), price=usd(p)) for h, p in history),
        "reliability": Reliability(correlation_group="g"),
        "auction_id": name if option is PurchaseOption.AUCTION else None,
    }
    return Offer.model_validate({**values, **fields})


def a_need(*, hours: float = 24, units: int = 3, survival: float = 0.9, key: str = "round-1") -> Need:
    term = Interval(start=NOW, end=NOW + timedelta(hours=hours))
    return Need(key=key, max_units=units, term=term, survival=survival)


def a_quote(offer: Offer, units: int, term: Interval, price: Money, *, lasts: float = 300) -> Quote:
    return Quote(
        id=QuoteId(f"quote-{offer.id}-{units}-{price.amount}"),
        offer=offer,
        quantity=units,
        unit_price=price,
        price_ceiling=price,
        term=term,
        expires_at=NOW + timedelta(seconds=lasts),
        strategy="",
    )


class Honest:
    """Quotes what it posted."""

    def __init__(self, name: str = "p", offers: Sequence[Offer] = ()) -> None:
        self.name = name
        self.posted = tuple(offers)
        self.asked: list[tuple[str, int]] = []

    def offers(self, need: OfferQuery) -> Sequence[Offer]:
        return self.posted

    def quote(self, offer: Offer, quantity: int, term: Interval) -> Quote:
        self.asked.append((offer.id, quantity))
        return a_quote(offer, quantity, term, offer.price)


class Stubborn(Honest):
    """Posts much, sells nothing."""

    def quote(self, offer: Offer, quantity: int, term: Interval) -> Quote:
        self.asked.append((offer.id, quantity))
        raise InsufficientCapacity(f"{offer.id}: none left")


class Silent(Honest):
    """Posts, then never answers."""

    def quote(self, offer: Offer, quantity: int, term: Interval) -> Quote:
        self.asked.append((offer.id, quantity))
        raise ProviderUnavailable(f"{self.name}: no answer in 10 s")


class Cheat(Honest):
    """Posts one price and asks a little more."""

    def quote(self, offer: Offer, quantity: int, term: Interval) -> Quote:
        self.asked.append((offer.id, quantity))
        return a_quote(offer, quantity, term, offer.price * Decimal("1.01"))


class LastMinute(Honest):
    """Its quotes have expired by the time they come; ``late`` of them."""

    def __init__(self, name: str = "p", offers: Sequence[Offer] = (), *, late: int = 1) -> None:
        super().__init__(name, offers)
        self.late = late

    def quote(self, offer: Offer, quantity: int, term: Interval) -> Quote:
        self.asked.append((offer.id, quantity))
        lasts = -1 if len(self.asked) <= self.late else 300
        return a_quote(offer, quantity, term, offer.price, lasts=lasts)


class Switcher(Honest):
    """Sells something else than was asked for."""

    def quote(self, offer: Offer, quantity: int, term: Interval) -> Quote:
        return a_quote(an_offer("another", provider=self.name), quantity, term, offer.price)


Settlement = Callable[[Money], tuple[Money, Money | None]]
"""bid -> (clearing price, price asked in the won quote; None: lost)"""


class Auctioneer(Honest):
    """Decides by ``settle``; remembers every bid with its key."""

    def __init__(
        self,
        settle: Settlement,
        *,
        rule: AuctionRule = AuctionRule.SECOND_PRICE,
        reserve: str = "0.01",
        name: str = "p",
    ) -> None:
        super().__init__(name)
        self.settle, self.rule, self.reserve = settle, rule, usd(reserve)
        self.bids: list[tuple[str, Money]] = []

    def auction_terms(self, offer: Offer) -> AuctionTerms:
        return AuctionTerms(rule=self.rule, reserve_price=self.reserve, closes_at=NOW + timedelta(seconds=2))

    def bid(self, offer: Offer, quantity: int, price: Money, term: Interval, *, key: str) -> AuctionOutcome:
        self.bids.append((key, price))
        clearing, asked = self.settle(price)
        if asked is None:
            return AuctionOutcome(won=False, clearing_price=clearing, reason="outbid")
        return AuctionOutcome(won=True, clearing_price=clearing, quote=a_quote(offer, quantity, term, asked))


class Haggler(Honest):
    """Talks about its prices. ``counter(round, ask, proposed)`` is its next price; None: it rejects and names none.

    It accepts what is no worse than that. ``rounds``: how long it listens.
    """

    def __init__(self, counter: Callable[[int, Decimal, Decimal], Decimal | None], *, rounds: int = 99) -> None:
        super().__init__("p")
        self.counter, self.rounds = counter, rounds
        self.heard: list[tuple[str, int, Decimal]] = []
        self.best: dict[str, Decimal] = {}

    def propose(
        self, offer: Offer, quantity: int, price: Money, term: Interval, *, key: str, round_number: int
    ) -> RfqAnswer:
        self.heard.append((key, round_number, price.amount))
        ask = self.best.setdefault(offer.id, offer.price.amount)
        wanted = self.counter(round_number, offer.price.amount, price.amount)
        final = round_number >= self.rounds
        if wanted is None:
            return self._answer(RfqReply.REJECTED, offer, quantity, term, ask, final=final)
        if price.amount >= wanted:
            return self._answer(RfqReply.ACCEPTED, offer, quantity, term, self.agreed(price.amount), final=True)
        self.best[offer.id] = self.step(ask, wanted)
        return self._answer(RfqReply.COUNTERED, offer, quantity, term, self.best[offer.id], final=final)

    def agreed(self, proposed: Decimal) -> Decimal:
        return proposed

    def step(self, standing: Decimal, wanted: Decimal) -> Decimal:
        return min(standing, wanted)

    def _answer(
        self, reply: RfqReply, offer: Offer, quantity: int, term: Interval, price: Decimal, *, final: bool
    ) -> RfqAnswer:
        quote = a_quote(offer, quantity, term, Money(amount=price, currency=offer.price.currency))
        return RfqAnswer(reply=reply, quote=quote, final=final)


def honest_haggler(floor: str = "0.9") -> Haggler:
    """Goes down in even steps of six rounds to ``floor`` of its ask."""
    return Haggler(lambda number, ask, _: ask - (ask - ask * Decimal(floor)) * min(number, 6) / 6)


def stubborn_haggler() -> Haggler:
    """Rejects whatever is below its ask."""
    return Haggler(lambda _, ask, proposed: ask if proposed >= ask else None)


def last_minute_haggler() -> Haggler:
    """Rejects everything until the sixth round, then gives in."""
    return Haggler(lambda number, ask, _: None if number < 6 else ask * Decimal("0.7"), rounds=6)


def endless_haggler() -> Haggler:
    """Always has another counter-offer, a hair better than the last, and never comes to an end."""
    return Haggler(lambda number, ask, _: ask - Decimal(number) / 1_000_000)


class Climber(Haggler):
    """Its counter-offers go up again."""

    def __init__(self) -> None:
        super().__init__(lambda number, ask, _: ask * (Decimal("0.96") if number == 1 else Decimal("0.97")))

    def step(self, standing: Decimal, wanted: Decimal) -> Decimal:
        return wanted


class Overcharger(Haggler):
    """Accepts, and writes a little more into the quote."""

    def __init__(self) -> None:
        super().__init__(lambda *_: Decimal(0))

    def agreed(self, proposed: Decimal) -> Decimal:
        return proposed * Decimal("1.01")


class Inflater(Haggler):
    """Counters above what it posts."""

    def __init__(self) -> None:
        super().__init__(lambda _, ask, __: ask * 2)

    def step(self, standing: Decimal, wanted: Decimal) -> Decimal:
        return wanted


def a_market(*providers: Provider, offers: Sequence[Offer] = ()) -> LiveMarket:
    return LiveMarket(
        providers={provider.name: provider for provider in providers},
        clock=ManualClock(NOW),
        rng=Random(0),
        offers=tuple(offers),
    )
