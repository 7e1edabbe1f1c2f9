"""Run the strategies over the offers worth asking about, and end with firm quotes.

What a provider answers decides what happens: InsufficientCapacity -> the next offer; QuoteExpired -> quote again, once;
PriceMismatch -> this offer is stopped; unavailable or unauthorised -> this provider is not asked again. Each of these
is reported as an OfferRejection, so that no offer disappears without a reason.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Thread

from engine.errors import (
    AuthenticationFailed,
    InsufficientCapacity,
    PriceMismatch,
    ProviderError,
    ProviderUnavailable,
    QuoteExpired,
    ShardwrightError,
)
from engine.market.base import Declined, LiveMarket, Market, Need, Strategy
from engine.market.discovery import MarketView
from engine.market.scoring import ScoreWeights, rank
from engine.model.market import Offer, Quote
from engine.model.plan import OfferRejection
from engine.model.value import Value

PER_MARKET = 6
"""Offers that are negotiated of one provider, region and purchase option."""


class Negotiation(Value):
    """Firm quotes, best-scored offers first within a provider, and why the other shortlisted offers gave none."""

    quotes: tuple[Quote, ...]
    rejections: tuple[OfferRejection, ...]


def shortlist(
    view: MarketView, need: Need, weights: ScoreWeights | None = None, per_market: int = PER_MARKET
) -> tuple[Offer, ...]:
    """The best-scored offers of every provider, region and purchase option: a market nobody asks is never cheap."""
    taken: dict[tuple[str, str, str], int] = {}
    chosen = []
    for scored in rank(view.offers, need, weights or ScoreWeights()):
        key = (scored.offer.provider, scored.offer.region, scored.offer.option.value)
        taken[key] = taken.get(key, 0) + 1
        if taken[key] <= per_market:
            chosen.append(scored.offer)
    return tuple(chosen)


def negotiate(
    view: MarketView,
    need: Need,
    strategies: Sequence[Strategy],
    market: Market,
    *,
    weights: ScoreWeights | None = None,
    per_market: int = PER_MARKET,
) -> Negotiation:
    """Providers side by side, the offers of one provider in turn. Every quote names the strategy that got it."""
    seen = LiveMarket(providers=market.providers, clock=market.clock, rng=market.rng, offers=view.offers)
    tables: dict[str, _Table] = {}
    for offer in shortlist(view, need, weights, per_market):
        tables.setdefault(offer.provider, _Table(offer.provider, need, strategies, seen)).offers.append(offer)
    threads = [Thread(target=table.run, name=f"negotiate-{name}") for name, table in tables.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for table in tables.values():
        if table.crash is not None:
            raise table.crash
    return Negotiation(
        quotes=tuple(quote for table in tables.values() for quote in table.quotes),
        rejections=tuple(rejection for table in tables.values() for rejection in table.rejections),
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
    crash: Exception | None = None

    def run(self) -> None:
        try:
            left_because: str | None = None
            for offer in self.offers:
                left_because = left_because or self._talk_about(offer)
                if left_because:
                    self._reject(offer, left_because)
        except Exception as error:  # carried to the thread that asked
            self.crash = error

    def _talk_about(self, offer: Offer) -> str | None:
        """Why there is no use in asking this provider any more; None: go on."""
        for strategy in self.strategies:
            try:
                self.quotes += [_verified(quote, strategy) for quote in self._quotes(strategy, offer)]
            except Declined as passed:
                self._reject(offer, f"{strategy.name}: {passed.reason}")
            except PriceMismatch as mismatch:
                self._reject(offer, f"price mismatch: {mismatch}")
                return None
            except InsufficientCapacity as short:
                self._reject(offer, f"no capacity: {short}")
            except QuoteExpired as expired:
                self._reject(offer, f"its quotes expire at once: {expired}")
            except (AuthenticationFailed, ProviderUnavailable) as gone:
                return f"{self.provider} left the negotiation: {gone}"
            except ProviderError as refusal:
                self._reject(offer, f"{strategy.name}: {refusal}")
        return None

    def _quotes(self, strategy: Strategy, offer: Offer) -> Sequence[Quote]:
        if offer.provider not in self.market.providers:
            raise ShardwrightError(f"{offer.id}: there is no provider {offer.provider}")
        try:
            return strategy.negotiate(self.need, (offer,), self.market)
        except QuoteExpired:
            return strategy.negotiate(self.need, (offer,), self.market)

    def _reject(self, offer: Offer, reason: str) -> None:
        self.rejections.append(OfferRejection(offer=offer.id, provider=self.provider, reason=reason))


def _verified(quote: Quote, strategy: Strategy) -> Quote:
    """Whoever wrote the strategy: its quote names it and stays under its own ceiling."""
    over = quote.unit_price.currency != quote.price_ceiling.currency or quote.price_ceiling < quote.unit_price
    if over or quote.unit_price.amount <= 0:
        raise PriceMismatch(f"{strategy.name} came back with {quote.unit_price}, ceiling {quote.price_ceiling}")
    return quote if quote.strategy == strategy.name else quote.model_copy(update={"strategy": strategy.name})
