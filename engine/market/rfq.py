"""Talk a posted price down: concede step by step from what is hoped for to what it is worth, in bounded rounds.

The reservation price is the posted one, or what the best alternative costs for as many slices where that is less. The
concession depends on time alone (Faratin, Sierra and Jennings 1998): round k of n proposes
``aspiration + (reservation - aspiration) * (k / (n - 1)) ** patience``. A rejection ends nothing; the next round
proposes more. A counter-offer, this round's or an earlier one, is taken when it is no dearer than what would be
proposed next. After the last round the best firm price is taken if it is within the reservation price, or at least
below the posted one: a quote commits to nothing, and the plan weighs it. So no counterparty, however stubborn, can make
it pay more, or talk for ever.

Whoever answers above the posted price, raises its own counter-offer, or accepts at one price and asks another is
stopped with PriceMismatch.
"""

from collections.abc import Sequence
from decimal import ROUND_FLOOR, Decimal
from hashlib import sha256

from engine.errors import PriceMismatch
from engine.market.auction import worth_of
from engine.market.base import Declined, Market, Need, checked, units_wanted
from engine.market.scoring import survival
from engine.model.market import Offer, PurchaseOption, Quote
from engine.model.money import Money
from providers.base import RfqAnswer, RfqReply, SupportsRfq

ROUNDS = 6
OPENING = Decimal("0.8")
"""The aspiration, as a share of the reservation price."""
PATIENCE = 1.5
"""Above 1 it concedes late, below 1 early."""
_POSTED = (PurchaseOption.ON_DEMAND, PurchaseOption.COMMITMENT)
_STEP = Decimal("0.000001")


class RfqStrategy:
    name = "rfq"

    def negotiate(self, need: Need, offers: Sequence[Offer], market: Market) -> Sequence[Quote]:
        quotes = []
        for offer in offers:
            provider = market.providers[offer.provider]
            if offer.option in _POSTED and offer.list_price is None and isinstance(provider, SupportsRfq):
                quotes.append(self._talk(need, offer, market, provider))
        return quotes

    def _talk(self, need: Need, offer: Offer, market: Market, provider: SupportsRfq) -> Quote:
        units, reservation = units_wanted(need, offer), reservation_price(offer, need, market.offers)
        proposals = concession(reservation)
        best: Quote | None = None
        for number, proposal in enumerate(proposals, start=1):
            price = Money(amount=proposal, currency=offer.price.currency)
            answer = provider.propose(offer, units, price, need.term, key=talk_key(need, offer), round_number=number)
            best = _read_back(answer, offer, units, price, best, need, market)
            following = proposals[number] if number < len(proposals) else reservation
            named = answer.reply is RfqReply.COUNTERED or best.unit_price < offer.price
            if answer.reply is RfqReply.ACCEPTED or (named and best.unit_price.amount <= following):
                return best
            if answer.final:
                break
        if best is None or (best.unit_price.amount > reservation and best.unit_price >= offer.price):
            stands = best.unit_price if best else "nothing"
            raise Declined(f"no agreement: it stands at {stands}, worth at most {reservation}")
        return best


def concession(
    reservation: Decimal, *, rounds: int = ROUNDS, opening: Decimal = OPENING, patience: float = PATIENCE
) -> tuple[Decimal, ...]:
    """One proposal a round, never falling, the last one the reservation price."""
    aspiration = reservation * opening
    shares = [Decimal(repr(round((k / max(1, rounds - 1)) ** patience, 9))) for k in range(rounds)]
    steps = [
        (aspiration + (reservation - aspiration) * share).quantize(_STEP, rounding=ROUND_FLOOR) for share in shares
    ]
    return (*(max(step, _STEP) for step in steps[:-1]), reservation)


def reservation_price(offer: Offer, need: Need, offers: Sequence[Offer]) -> Decimal:
    """Per unit-hour: no more than is posted, and no more than the best alternative for as many slices."""
    others = [other for other in offers if other.id != offer.id]
    try:
        worth = worth_of(offer, need, others).amount
    except Declined:
        return offer.price.amount
    return min(offer.price.amount, worth) if worth > 0 else offer.price.amount


def talk_key(need: Need, offer: Offer) -> str:
    """The same for the same need and offer, in any process."""
    return sha256(f"rfq\n{need.key}\n{offer.id}".encode()).hexdigest()


def _read_back(
    answer: RfqAnswer, offer: Offer, units: int, proposed: Money, before: Quote | None, need: Need, market: Market
) -> Quote:
    """The answer's quote, checked; its price is its ceiling."""
    price = answer.quote.unit_price
    if answer.reply is RfqReply.ACCEPTED and (price.currency != proposed.currency or proposed < price):
        raise PriceMismatch(f"{offer.id}: {proposed} was accepted, but the quote asks {price}")
    quote = checked(
        answer.quote,
        offer,
        units,
        strategy=RfqStrategy.name,
        ceiling=offer.price,
        survival=survival(offer, need.term.hours),
        clock=market.clock,
    )
    if before is not None and before.unit_price < quote.unit_price:
        raise PriceMismatch(f"{offer.id}: its counter-offer went up from {before.unit_price} to {price}")
    return quote.model_copy(update={"price_ceiling": price})
