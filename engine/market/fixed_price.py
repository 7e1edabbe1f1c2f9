"""Pay the posted price, or the negotiated one: on demand and commitments.

The ceiling is what was posted or agreed; a dearer quote is refused.
"""

from collections.abc import Sequence

from engine.market.agreements import listed, settled
from engine.market.base import Market, Need, checked, units_wanted
from engine.market.scoring import survival
from engine.model.market import Offer, PurchaseOption, Quote

_POSTED = (PurchaseOption.ON_DEMAND, PurchaseOption.COMMITMENT)


class FixedPriceStrategy:
    name = "fixed_price"

    def negotiate(self, need: Need, offers: Sequence[Offer], market: Market) -> Sequence[Quote]:
        return [self._take(need, offer, market) for offer in offers if offer.option in _POSTED]

    def _take(self, need: Need, offer: Offer, market: Market) -> Quote:
        units = units_wanted(need, offer)
        quote = market.providers[offer.provider].quote(listed(offer), units, need.term)
        return checked(
            settled(quote, offer),
            offer,
            units,
            strategy=self.name,
            ceiling=offer.price,
            survival=survival(offer, need.term.hours),
            clock=market.clock,
        )
