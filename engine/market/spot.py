"""Buy spot under a ceiling read from the price history.

The ceiling is the level that, over the history, held for the wanted time with the wanted probability. It is never
above the on-demand price of the same machine (where that is not sold, of the cheapest on-demand capacity of the same
size), and never below today's price. Where the history is shorter than the wanted time there is no such level, and the
on-demand price is the ceiling. Survival is the share of the history in which the ceiling would have held, times the
probability that the provider does not take the unit back for want of capacity.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import ROUND_CEILING, Decimal
from math import ceil

from engine.market.base import Declined, Market, Need, checked, units_wanted
from engine.market.scoring import price_per_slice, survival
from engine.model.capacity import Resources
from engine.model.market import Offer, PurchaseOption, Quote
from engine.model.money import Money

_WINDOWS = 200
_STEP = Decimal("0.000001")


class SpotStrategy:
    name = "spot"

    def negotiate(self, need: Need, offers: Sequence[Offer], market: Market) -> Sequence[Quote]:
        return [self._under_a_ceiling(need, offer, market) for offer in offers if offer.option is PurchaseOption.SPOT]

    def _under_a_ceiling(self, need: Need, offer: Offer, market: Market) -> Quote:
        units = units_wanted(need, offer)
        cap = on_demand_price(offer, market.offers, need.slice)
        if cap is not None and cap < offer.price:
            raise Declined(f"spot at {offer.price} is dearer than on demand at {cap}")
        maxima = highest_in_each_window(offer, market.clock.now(), need.term.end - need.term.start)
        ceiling = ceiling_that_held(offer, maxima, need.survival, cap)
        held = sum(1 for highest in maxima if highest <= ceiling.amount) / len(maxima) if maxima else 1.0
        quote = market.providers[offer.provider].quote(offer, units, need.term)
        return checked(
            quote,
            offer,
            units,
            strategy=self.name,
            ceiling=ceiling,
            survival=held * survival(offer, need.term.hours),
            clock=market.clock,
        )


def on_demand_price(offer: Offer, offers: Sequence[Offer], slice_: Resources) -> Money | None:
    """Of the same machine in the same region, else of as many slices anywhere; None where nothing is on demand."""
    posted = [
        other
        for other in offers
        if other.option is PurchaseOption.ON_DEMAND and other.price.currency == offer.price.currency
    ]
    same = [
        other.price
        for other in posted
        if (other.provider, other.region, other.instance_type) == (offer.provider, offer.region, offer.instance_type)
    ]
    if same:
        return min(same, key=lambda price: price.amount)
    slices = offer.resources.holds(slice_)
    per_slice = [
        other.price.amount / other.resources.holds(slice_) for other in posted if price_per_slice(other, slice_)
    ]
    if not per_slice or not slices:
        return None
    amount = (min(per_slice) * slices).quantize(_STEP, rounding=ROUND_CEILING)
    return Money(amount=amount, currency=offer.price.currency)


def highest_in_each_window(offer: Offer, now: datetime, length: timedelta) -> tuple[Decimal, ...]:
    """The highest price in each of many windows of ``length`` spread evenly over the history; () where it is shorter.

    A price holds from its point to the next one; the last one holds until now.
    """
    points = [point for point in offer.price_history if point.price.currency == offer.price.currency]
    points = sorted((point for point in points if point.at <= now), key=lambda point: point.at)
    if not points or points[0].at + length > now:
        return ()
    times = [point.at for point in points]
    prices = [point.price.amount for point in points]
    slack = now - length - times[0]
    starts = [times[0] + slack * index / (_WINDOWS - 1) for index in range(_WINDOWS)]
    return tuple(_highest(times, prices, start, start + length) for start in starts)


def ceiling_that_held(offer: Offer, maxima: Sequence[Decimal], probability: float, cap: Money | None) -> Money:
    """The lowest level that at least ``probability`` of the windows stayed under, between today's price and the cap."""
    if maxima:
        ordered = sorted(maxima)
        level = ordered[max(0, ceil(probability * len(ordered) - 1e-9) - 1)]
    else:
        level = offer.price.amount if cap is None else cap.amount
    level = max(level, offer.price.amount)
    return Money(amount=level if cap is None else min(level, cap.amount), currency=offer.price.currency)


def _highest(times: Sequence[datetime], prices: Sequence[Decimal], start: datetime, end: datetime) -> Decimal:
    first = max(0, bisect_right(times, start) - 1)
    return max(prices[first : max(first + 1, bisect_left(times, end))])
