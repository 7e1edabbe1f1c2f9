"""What a network says, as our values: ids with its configured name in front, so that those of two networks never meet.

A value that it cannot be is an invalid answer, of one offer or of the whole.
"""

from collections.abc import Callable
from typing import TypeVar

from pydantic import ValidationError

from engine.errors import ProviderAnswerInvalid
from engine.model.capacity import Resources
from engine.model.ids import NodeId, OfferId, QuoteId
from engine.model.market import Delivery, Offer, PricePoint, Quote, ReclaimNotice, Reliability
from engine.model.money import Money
from engine.model.plan import OfferRejection
from engine.model.value import Interval
from providers.base import EventKind, ProviderEvent
from providers.network import wire
from providers.network.wire_records import AnyEvent, GapEvent, ReclaimEvent

_LONGEST_REASON = 200
_Answer = TypeVar("_Answer")


class Reading:
    """Of one configured network: its name and account."""

    def __init__(self, name: str, account: str) -> None:
        self._name, self._account = name, account

    def our_id(self, identifier: str) -> str:
        return f"{self._name}/{identifier}"

    def own_id(self, identifier: str) -> str:
        return identifier.removeprefix(f"{self._name}/")

    def rejection(self, identifier: str, reason: str) -> OfferRejection:
        return OfferRejection(offer=OfferId(self.our_id(identifier)), provider=self._name, reason=reason)

    def notice(self, event: ReclaimEvent) -> ReclaimNotice:
        return ReclaimNotice(
            node=NodeId(event.node),
            provider=self._name,
            seen_at=event.at,
            at=event.reclaim_at,
            reason=event.reason[:_LONGEST_REASON] or "reclaimed",
        )

    def event(self, event: AnyEvent) -> ProviderEvent:
        number, kind = str(event.event_id), EventKind(event.type)
        if isinstance(event, ReclaimEvent):
            return ProviderEvent(id=number, kind=kind, notice=self.notice(event))
        offer = None if isinstance(event, GapEvent) else OfferId(self.our_id(event.offer_id))
        return ProviderEvent(id=number, kind=kind, offer=offer)

    def read(self, build: Callable[[], _Answer]) -> _Answer:
        """What the network said, as our values; a value it cannot be is an invalid answer."""
        try:
            return build()
        except ValidationError as problem:
            raise ProviderAnswerInvalid(f"{self._name}: not what the API promises", why=fault(problem)) from None

    def offer(self, posted: wire.WireOffer) -> Offer:
        return Offer(
            id=OfferId(self.our_id(posted.offer_id)),
            provider=self._name,
            account=self._account,
            region=posted.region,
            zone=posted.zone,
            instance_type=posted.instance_type,
            resources=Resources(
                vcpus=posted.resources.vcpus,
                memory_gib=posted.resources.memory_gib,
                storage_iops=posted.resources.storage_iops,
                network_mbps=posted.resources.network_mbps,
            ),
            performance=posted.measured.score if posted.measured else posted.performance,
            option=posted.option,
            price=money(posted.price),
            price_at=posted.price_at,
            price_history=tuple(
                PricePoint(at=point.at, price=money(point.price))
                for point in sorted(posted.price_history, key=lambda point: point.at)
            ),
            available=posted.available,
            reliability=Reliability(
                interruption_per_month=posted.interruption_per_month,
                # Two networks may use the same word; what fails together never crosses a provider.
                correlation_group=self.our_id(posted.correlation_group),
            ),
            expires_at=posted.expires_at,
            auction_id=posted.auction_id,
            delivery=Delivery(earliest=posted.delivery.earliest, latest=posted.delivery.latest),
        )

    def quote(self, firm: wire.WireQuote, offer: Offer, quantity: int, *, strategy: str) -> Quote:
        """Raises ProviderAnswerInvalid on a quote that is not what was asked for."""
        if self.our_id(firm.offer_id) != offer.id or firm.quantity > quantity:
            raise ProviderAnswerInvalid(
                f"{self._name}: asked for {quantity} of {offer.id}",
                why=f"the quote is for {firm.quantity} of {firm.offer_id}",
            )
        if firm.unit_price.amount <= 0:
            raise ProviderAnswerInvalid(f"{self._name}: quote {firm.quote_id} asks {money(firm.unit_price)}")
        return self.read(
            lambda: Quote(
                id=QuoteId(self.our_id(firm.quote_id)),
                offer=offer,
                quantity=firm.quantity,
                unit_price=money(firm.unit_price),
                price_ceiling=money(firm.unit_price),
                term=Interval(start=firm.term.start, end=firm.term.end),
                expires_at=firm.expires_at,
                strategy=strategy,
                proof=firm.proof,
            )
        )


def wire_term(term: Interval) -> wire.WireTerm:
    return wire.WireTerm(start=term.start, end=term.end)


def money(amount: wire.WireMoney) -> Money:
    return Money(amount=amount.amount, currency=amount.currency)


def fault(problem: ValidationError) -> str:
    first = problem.errors(include_input=False, include_url=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg'].lower()}"
