"""Run the strategies over the offers worth asking about, and end with firm quotes.

What a provider answers decides what happens: InsufficientCapacity -> the next offer; QuoteExpired -> quote again, once;
PriceMismatch -> this offer is stopped; unavailable or unauthorised -> this provider is not asked again; out of time ->
the round goes on without it. Each of these is reported as an OfferRejection, so that no offer disappears without a
reason. Where several strategies got a quote for one offer, the cheapest counts.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from threading import Thread
from time import monotonic
from typing import Annotated

from pydantic import Field

from engine.errors import (
    AuthenticationFailed,
    InsufficientCapacity,
    PriceMismatch,
    ProviderError,
    ProviderUnavailable,
    QuoteExpired,
    ShardwrightError,
)
from engine.market.base import Declined, LiveMarket, Market, Need, Strategy, units_wanted
from engine.market.discovery import MarketView
from engine.market.scoring import ScoreWeights
from engine.market.shortlist import PER_USE, Uses, shortlist
from engine.model.ids import OfferId
from engine.model.market import Offer, Place, Quote
from engine.model.plan import OfferRejection
from engine.model.value import Value

TIMEOUT_SECONDS = 180.0
"""Of real time, for all of it: auctions take a minute, and every single call has a time-out of its own."""


class DeniedQuote(Value):
    """So many units at once could not be had, whoever asked."""

    place: Place
    units: Annotated[int, Field(gt=0)]


class Negotiation(Value):
    """Firm quotes, best-scored offers first within a provider, and why the other shortlisted offers gave none."""

    quotes: tuple[Quote, ...]
    rejections: tuple[OfferRejection, ...]
    denied: tuple[DeniedQuote, ...] = ()


def negotiate(
    view: MarketView,
    need: Need,
    strategies: Sequence[Strategy],
    market: Market,
    *,
    weights: ScoreWeights | None = None,
    per_use: int = PER_USE,
    uses: Uses | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> Negotiation:
    """Providers side by side, the offers of one provider in turn. Every quote names the strategy that got it.

    Blocks for ``timeout_seconds`` of real time at most; a provider that is not done by then is left where it is.
    """
    seen = LiveMarket(providers=market.providers, clock=market.clock, rng=market.rng, offers=view.offers)
    tables: dict[str, _Table] = {}
    for offer in shortlist(view, need, weights, per_use, uses):
        tables.setdefault(offer.provider, _Table(offer.provider, need, strategies, seen)).offers.append(offer)
    # Daemons: a provider that never answers keeps no process alive.
    threads = [Thread(target=table.run, name=f"negotiate-{name}", daemon=True) for name, table in tables.items()]
    ends_at = monotonic() + timeout_seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, ends_at - monotonic()))
    results = [table.result(timeout_seconds) for table in tables.values()]
    return Negotiation(
        quotes=tuple(quote for result in results for quote in result.quotes),
        rejections=tuple(rejection for result in results for rejection in result.rejections),
        denied=tuple(denied for result in results for denied in result.denied),
    )


@dataclass
class _Table:
    """The negotiation with one provider."""

    provider: str
    need: Need
    strategies: Sequence[Strategy]
    market: Market
    offers: list[Offer] = field(default_factory=list)
    quotes: list[Quote] = field(default_factory=list)
    rejections: list[OfferRejection] = field(default_factory=list)
    denied: dict[OfferId, DeniedQuote] = field(default_factory=dict)
    done: list[Offer] = field(default_factory=list)
    crash: Exception | None = None

    def run(self) -> None:
        try:
            left_because: str | None = None
            for offer in self.offers:
                left_because = left_because or self._talk_about(offer)
                if left_because:
                    self._reject(offer, left_because)
                self.done.append(offer)
        except Exception as error:  # carried to the thread that asked
            self.crash = error

    def result(self, timeout_seconds: float) -> Negotiation:
        """What came of it so far; offers that were not dealt with are out of time. Raises what the thread raised."""
        if self.crash is not None:
            raise self.crash
        done = {offer.id for offer in list(self.done)}
        late = [
            OfferRejection(
                offer=offer.id,
                provider=self.provider,
                reason=f"out of time: {self.provider} did not finish in {timeout_seconds:g} s",
            )
            for offer in self.offers
            if offer.id not in done
        ]
        return Negotiation(
            quotes=tuple(quote for quote in list(self.quotes) if quote.offer.id in done),
            rejections=(*(one for one in list(self.rejections) if one.offer in done), *late),
            denied=tuple(denied for offer, denied in list(self.denied.items()) if offer in done),
        )

    def _talk_about(self, offer: Offer) -> str | None:
        """Why there is no use in asking this provider any more; None: go on."""
        found: list[list[Quote]] = []
        said_before = len(self.rejections)
        left_because = self._ask(offer, found)
        got = [quotes for quotes in found if quotes]
        if got:
            self.quotes += min(got, key=_cheapest)
            del self.rejections[said_before:]  # one strategy passed, another bought: the offer is not refused
            self.denied.pop(offer.id, None)
        elif len(self.rejections) > said_before + 1:
            reasons = "; ".join(one.reason for one in self.rejections[said_before:])
            self.rejections[said_before:] = [OfferRejection(offer=offer.id, provider=self.provider, reason=reasons)]
        return left_because

    def _ask(self, offer: Offer, found: list[list[Quote]]) -> str | None:
        for strategy in self.strategies:
            try:
                found.append([_verified(quote, strategy) for quote in self._quotes(strategy, offer)])
            except Declined as passed:
                self._reject(offer, f"{strategy.name}: {passed.reason}")
            except PriceMismatch as mismatch:
                self._reject(offer, f"price mismatch: {mismatch}")
                found.clear()  # who cheats once is not bought from on another strategy's quote
                return None
            except InsufficientCapacity as short:
                self._reject(offer, f"no capacity: {short}")
                self._deny(offer)
            except QuoteExpired as expired:
                self._reject(offer, f"its quotes expire at once: {expired}")
            except (AuthenticationFailed, ProviderUnavailable) as gone:
                return f"{self.provider} left the negotiation: {gone}"
            except ProviderError as refusal:
                self._reject(offer, f"{strategy.name}: {refusal}")
        return None

    def _deny(self, offer: Offer) -> None:
        """A strategy of somebody else's may ask for what says itself that none is left: nothing was learned then."""
        with suppress(Declined):
            self.denied[offer.id] = DeniedQuote(place=offer.place, units=units_wanted(self.need, offer))

    def _quotes(self, strategy: Strategy, offer: Offer) -> Sequence[Quote]:
        if offer.provider not in self.market.providers:
            raise ShardwrightError(f"{offer.id}: there is no provider {offer.provider}")
        try:
            return strategy.negotiate(self.need, (offer,), self.market)
        except QuoteExpired:
            return strategy.negotiate(self.need, (offer,), self.market)

    def _reject(self, offer: Offer, reason: str) -> None:
        self.rejections.append(OfferRejection(offer=offer.id, provider=self.provider, reason=reason))


def _cheapest(quotes: Iterable[Quote]) -> Decimal:
    return min(quote.unit_price.amount for quote in quotes)


def _verified(quote: Quote, strategy: Strategy) -> Quote:
    """Whoever wrote the strategy: its quote names it and stays under its own ceiling."""
    over = quote.unit_price.currency != quote.price_ceiling.currency or quote.price_ceiling < quote.unit_price
    if over or quote.unit_price.amount <= 0:
        raise PriceMismatch(f"{strategy.name} came back with {quote.unit_price}, ceiling {quote.price_ceiling}")
    return quote if quote.strategy == strategy.name else quote.model_copy(update={"strategy": strategy.name})
