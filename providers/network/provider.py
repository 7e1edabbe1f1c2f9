"""Any third-party network that speaks the Open Capacity API, as a Provider.

``credentials.token`` is the bearer token. Ids are the network's own, with the provider's configured name in front, so
that those of two networks never meet. A quote's firm price also is its ceiling: a network's price does not move once
it is quoted.
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from datetime import datetime
from hashlib import sha256
from random import Random
from typing import TypeVar
from uuid import uuid4
from weakref import finalize

import httpx
from pydantic import ValidationError

from engine.clock import Clock
from engine.errors import (
    AuthenticationFailed,
    ConfigurationError,
    NotFound,
    PriceMismatch,
    ProviderAnswerInvalid,
    QuoteExpired,
)
from engine.model.billing import BillDelivery, BillFormat, Invoice
from engine.model.capacity import Resources
from engine.model.ids import HoldId, NodeId, OfferId, QuoteId, ReservationId
from engine.model.market import (
    Delivery,
    Hold,
    Offer,
    OfferQuery,
    PricePoint,
    Quote,
    ReclaimNotice,
    Reliability,
    Reservation,
)
from engine.model.money import Money
from engine.model.plan import OfferRejection
from engine.model.value import Interval
from providers.base import (
    AuctionOutcome,
    AuctionRule,
    AuctionTerms,
    EventKind,
    InstanceRecord,
    KeyMemory,
    OfferBook,
    ProviderEvent,
    ProviderSettings,
    RfqAnswer,
    RfqReply,
)
from providers.network import wire
from providers.network.client import NetworkClient
from providers.network.climbing import bid_and_wait, find_auction
from providers.network.signing import Unproven, thumbprints
from providers.network.trust import Trust
from providers.network.wire_records import AnyEvent, GapEvent, ReclaimEvent
from providers.network.wire_talks import NegotiationState, Reply

_RULES = {
    wire.WireAuctionRule.SEALED_FIRST_PRICE: AuctionRule.FIRST_PRICE,
    wire.WireAuctionRule.SEALED_SECOND_PRICE: AuctionRule.SECOND_PRICE,
    wire.WireAuctionRule.OPEN_ASCENDING: AuctionRule.OPEN_ASCENDING,
}
_REPLIES = {
    Reply.ASKED: RfqReply.COUNTERED,
    Reply.ACCEPTED: RfqReply.ACCEPTED,
    Reply.COUNTERED: RfqReply.COUNTERED,
    Reply.REJECTED: RfqReply.REJECTED,
}
_Answer = TypeVar("_Answer")


class NetworkProvider:
    """Provider, SupportsRfq, -Holds, -Auctions, -AuctionTerms, -OfferBook, -SigningKeys, -Inventory, -ReclaimNotices,
    -EventStream and -Bills.
    """

    def __init__(
        self,
        settings: ProviderSettings,
        *,
        clock: Clock,
        rng: Random | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.name = settings.name
        self._settings, self._clock, self._rng, self._transport = settings, clock, rng, transport
        self._opened: NetworkClient | None = None
        self._trusting: Trust | None = None
        self._memory: KeyMemory | None = None
        if settings.endpoint is None:
            raise ConfigurationError(
                f"providers.{settings.name}.endpoint is missing", why="a network has no well-known address"
            )
        self._endpoint = settings.endpoint

    # --- Provider -------------------------------------------------------------------------------------------------

    def offers(self, need: OfferQuery) -> Sequence[Offer]:
        return self.offer_book(need).offers

    def offer_book(self, need: OfferQuery) -> OfferBook:
        regions = tuple(r for r in self._settings.regions if need.placement.allows(self.name, r))
        if not regions:
            return OfferBook(offers=())
        least = need.at_least
        page = self._client.offers(
            vcpus=least.vcpus,
            memory_gib=least.memory_gib,
            storage_iops=least.storage_iops,
            network_mbps=least.network_mbps,
            regions=regions,
            options=tuple(option.value for option in need.options),
        )
        rejections = [self._rejection(fault.offer_id, fault.reason) for fault in page.faults]
        check = self._trust.offer_check() if page.offers else None
        offers = []
        for posted in page.offers:
            if posted.region not in regions or posted.option not in need.options:
                continue  # a network may know fewer filters than we ask for
            try:
                offer = self._offer(posted)
                if check is not None:
                    check(posted)
            except (ValidationError, Unproven) as problem:
                reason = problem.reason if isinstance(problem, Unproven) else _fault(problem)
                rejections.append(self._rejection(posted.offer_id, reason))
                continue
            if offer.resources.holds(least) >= 1:
                offers.append(offer)
        return OfferBook(offers=tuple(offers), rejections=tuple(rejections))

    def quote(self, offer: Offer, quantity: int, term: Interval) -> Quote:
        nonce = uuid4().hex
        asked = self._client.quote(self._own_id(offer.id), quantity=quantity, term=_wire_term(term), nonce=nonce)
        self._prove(asked, lambda: self._trust.check_fresh_quote(asked, _wire_term(term), nonce=nonce))
        return self._quote(asked, offer, quantity, strategy="fixed_price")

    # --- SupportsSigningKeys --------------------------------------------------------------------------------------

    def remember_keys_in(self, memory: KeyMemory) -> None:
        self._memory, self._trusting = memory, None

    def signing_keys(self) -> Sequence[str]:
        return thumbprints(self._client.keys())

    # --- SupportsRfq ----------------------------------------------------------------------------------------------

    def propose(
        self, offer: Offer, quantity: int, price: Money, term: Interval, *, key: str, round_number: int
    ) -> RfqAnswer:
        """``round_number`` counts the proposals of the conversation ``key`` from 1."""
        talk = self._client.negotiate(self._own_id(offer.id), quantity=quantity, term=_wire_term(term), key=key)
        if talk.state is NegotiationState.OPEN:
            money = wire.WireMoney(amount=price.amount, currency=price.currency)
            talk = self._client.propose(talk.negotiation_id, money, key=f"{key}:{round_number}")
        firm = talk.quote
        self._prove(firm, lambda: self._trust.check_keyed_quote(firm, key=key))
        return RfqAnswer(
            reply=_REPLIES[talk.reply],
            quote=self._quote(firm, offer, quantity, strategy="rfq"),
            final=talk.state is not NegotiationState.OPEN,
            reason=talk.reason,
        )

    # --- SupportsAuctions, SupportsAuctionTerms -------------------------------------------------------------------

    def bid(self, offer: Offer, quantity: int, price: Money, term: Interval, *, key: str) -> AuctionOutcome:
        """Waits up to a minute for the round to close; raises ProviderUnavailable when it has not by then."""
        auction_id = self._auction_id(offer)
        decided = bid_and_wait(
            self._client,
            self._clock,
            auction_id,
            quantity=quantity,
            limit=wire.WireMoney(amount=price.amount, currency=price.currency),
            term=_wire_term(term),
            key=key,
        )
        if decided is None:
            return AuctionOutcome(won=False, reason=f"the bidding went above {price}, or others were faster")
        clearing = None if decided.clearing_price is None else _money(decided.clearing_price)
        if decided.status is wire.BidStatus.LOST:
            reason = decided.reason or "outbid"
            return AuctionOutcome(won=False, clearing_price=clearing, bid=_money(decided.unit_price), reason=reason)
        if decided.quote is None:
            raise ProviderAnswerInvalid(f"{self.name}: auction {auction_id} was won, but no quote came with it")
        asked = _money(decided.quote.unit_price)
        if asked.currency != price.currency or price < asked:
            raise PriceMismatch(f"{self.name}: bid {price} in {auction_id}, asked to pay {asked}")
        firm = decided.quote
        self._prove(firm, lambda: self._trust.check_keyed_quote(firm, key=key))
        won = self._quote(firm, offer, quantity, strategy="auction")
        return AuctionOutcome(won=True, clearing_price=clearing, quote=won, bid=_money(decided.unit_price))

    def auction_terms(self, offer: Offer) -> AuctionTerms:
        auction_id = self._auction_id(offer)
        found = find_auction(self._client, auction_id)
        return AuctionTerms(
            rule=_RULES[found.rule], reserve_price=_money(found.reserve_price), closes_at=found.closes_at
        )

    # --- SupportsHolds --------------------------------------------------------------------------------------------

    def hold(self, quote: Quote, *, key: str) -> Hold:
        """``quote.quantity`` may be less than what was quoted: several holds may share one quote."""
        try:
            kept = self._client.hold(self._own_id(quote.id), quantity=quote.quantity, key=key)
        except NotFound as gone:
            raise QuoteExpired(f"{self.name}: the network no longer knows quote {quote.id}", why=gone.what) from gone
        if kept.state in (wire.HoldState.LAPSED, wire.HoldState.RELEASED):
            raise QuoteExpired(f"{self.name}: hold {kept.hold_id} is {kept.state.value}")
        if _money(kept.unit_price) != quote.unit_price or kept.quantity != quote.quantity:
            self._client.release(kept.hold_id)
            raise PriceMismatch(
                f"{self.name}: quoted {quote.quantity} at {quote.unit_price}, "
                f"held {kept.quantity} at {_money(kept.unit_price)}"
            )
        return Hold(
            id=HoldId(self._our_id(kept.hold_id)),
            key=key,
            quote=quote,
            expires_at=kept.expires_at,
            provider_reference=kept.hold_id,
        )

    def confirm(self, hold: Hold) -> Reservation:
        """Pays for the units on which no node was started yet; those that were are paid for by running."""
        reference = hold.provider_reference or self._own_id(hold.id)
        paid = self._client.pay(reference, key=f"{hold.key}:pay")
        if paid.state is not wire.HoldState.PAID and paid.started < paid.quantity:
            raise NotFound(f"{self.name}: hold {reference} is {paid.state.value}")
        if _money(paid.unit_price) != hold.quote.unit_price:
            raise PriceMismatch(
                f"{self.name}: hold {reference} was taken at {hold.quote.unit_price}, "
                f"but is charged at {_money(paid.unit_price)}",
                next_step="the network's signed promise is the quote's proof, in the plan",
            )
        return Reservation(
            id=ReservationId(self._our_id(reference)),
            hold_id=hold.id,
            quote=hold.quote,
            confirmed_at=paid.paid_at or self._clock.now(),
            provider_reference=reference,
        )

    def release(self, hold_id: str) -> None:
        """A hold (its units without a node) or one running reservation."""
        reference = self._own_id(hold_id)
        self._client.release(reference)
        self._client.delete_reservation(reference)

    # --- SupportsInventory, SupportsReclaimNotices, SupportsEventStream, SupportsBills ------------------------------

    def instances(self) -> Sequence[InstanceRecord]:
        return self._read(
            lambda: [
                InstanceRecord(
                    instance_id=found.instance_id,
                    node=NodeId(found.node),
                    token=found.token,
                    region=found.region,
                    zone=found.zone,
                    instance_type=found.instance_type,
                    running=found.state is wire.ReservationState.RUNNING,
                    launched_at=found.launched_at,
                )
                for found in self._client.instances()
                if found.node and found.token and found.region in self._settings.regions
            ]
        )

    def terminate(self, instance_id: str) -> None:
        self._client.delete_reservation(instance_id)

    def reclaim_notices(self, since: datetime) -> Iterable[ReclaimNotice]:
        return [self._notice(event) for event in self._client.events(since) if isinstance(event, ReclaimEvent)]

    def tells_events(self) -> bool:
        return self._client.terms().event_stream

    def event_stream(self, after: str | None, *, wait_seconds: float) -> Generator[ProviderEvent, None, None]:
        """``after`` is an event's number on the network, as text."""
        with closing(self._client.stream(int(after or 0), wait_seconds=wait_seconds)) as stream:
            for event in stream:
                yield self._event(event)

    def bill(self, period: Interval) -> BillDelivery:
        document = self._client.bill(period.start, period.end)
        invoice = document.invoice
        return self._read(
            lambda: BillDelivery(
                provider=self.name,
                format=BillFormat.FOCUS,
                content_type=document.content_type,
                content=document.content,
                sha256=sha256(document.content).hexdigest(),
                invoice=Invoice(
                    issuer=invoice.issuer,
                    invoice_id=invoice.invoice_id,
                    billing_period=Interval(start=invoice.period.start, end=invoice.period.end),
                    total=_money(invoice.total),
                ),
                delivered_at=self._clock.now(),
            )
        )

    # --- inside ---------------------------------------------------------------------------------------------------

    @property
    def _client(self) -> NetworkClient:
        if self._opened is None:
            token = self._settings.credentials.get("token")
            if token is None:
                raise AuthenticationFailed(
                    f"{self.name}: no token",
                    next_step=f"set providers.{self.name}.credentials.token in shardwright.toml",
                )
            self._opened = NetworkClient(
                self._endpoint,
                token.get_secret_value(),
                timeout=self._settings.timeout_seconds,
                clock=self._clock,
                ca_file=self._settings.ca_file,
                rng=self._rng,
                transport=self._transport,
            )
            finalize(self, self._opened.close)
        return self._opened

    @property
    def _trust(self) -> Trust:
        if self._trusting is None:
            self._trusting = Trust(
                self._client, self._clock, name=self.name, pinned=self._settings.signing_keys, memory=self._memory
            )
        return self._trusting

    def _our_id(self, identifier: str) -> str:
        return f"{self.name}/{identifier}"

    def _own_id(self, identifier: str) -> str:
        return identifier.removeprefix(f"{self.name}/")

    def _auction_id(self, offer: Offer) -> str:
        if offer.auction_id is None:
            raise NotFound(f"{self.name}: {offer.id} is not sold by auction")
        return offer.auction_id

    def _rejection(self, identifier: str, reason: str) -> OfferRejection:
        return OfferRejection(offer=OfferId(self._our_id(identifier)), provider=self.name, reason=reason)

    def _notice(self, event: ReclaimEvent) -> ReclaimNotice:
        return ReclaimNotice(
            node=NodeId(event.node),
            provider=self.name,
            seen_at=event.at,
            at=event.reclaim_at,
            reason=event.reason or "reclaimed",
        )

    def _event(self, event: AnyEvent) -> ProviderEvent:
        number, kind = str(event.event_id), EventKind(event.type)
        if isinstance(event, ReclaimEvent):
            return ProviderEvent(id=number, kind=kind, notice=self._notice(event))
        offer = None if isinstance(event, GapEvent) else OfferId(self._our_id(event.offer_id))
        return ProviderEvent(id=number, kind=kind, offer=offer)

    def _read(self, build: Callable[[], _Answer]) -> _Answer:
        """What the network said, as our values; a value it cannot be is an invalid answer."""
        try:
            return build()
        except ValidationError as problem:
            raise ProviderAnswerInvalid(f"{self.name}: not what the API promises", why=_fault(problem)) from None

    def _offer(self, posted: wire.WireOffer) -> Offer:
        return Offer(
            id=OfferId(self._our_id(posted.offer_id)),
            provider=self.name,
            account=self._settings.account,
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
            price=_money(posted.price),
            price_at=posted.price_at,
            price_history=tuple(
                PricePoint(at=point.at, price=_money(point.price))
                for point in sorted(posted.price_history, key=lambda point: point.at)
            ),
            available=posted.available,
            reliability=Reliability(
                interruption_per_month=posted.interruption_per_month,
                # Two networks may use the same word; what fails together never crosses a provider.
                correlation_group=self._our_id(posted.correlation_group),
            ),
            expires_at=posted.expires_at,
            auction_id=posted.auction_id,
            delivery=Delivery(earliest=posted.delivery.earliest, latest=posted.delivery.latest),
        )

    def _prove(self, firm: wire.WireQuote, check: Callable[[], None]) -> None:
        """Raises ProviderAnswerInvalid on a price that the network cannot be held to."""
        try:
            check()
        except Unproven as problem:
            raise ProviderAnswerInvalid(f"{self.name}: quote {firm.quote_id} is refused", why=problem.reason) from None

    def _quote(self, firm: wire.WireQuote, offer: Offer, quantity: int, *, strategy: str) -> Quote:
        """Raises ProviderAnswerInvalid on a quote that is not what was asked for."""
        if self._our_id(firm.offer_id) != offer.id or firm.quantity > quantity:
            raise ProviderAnswerInvalid(
                f"{self.name}: asked for {quantity} of {offer.id}",
                why=f"the quote is for {firm.quantity} of {firm.offer_id}",
            )
        if firm.unit_price.amount <= 0:
            raise ProviderAnswerInvalid(f"{self.name}: quote {firm.quote_id} asks {_money(firm.unit_price)}")
        return self._read(
            lambda: Quote(
                id=QuoteId(self._our_id(firm.quote_id)),
                offer=offer,
                quantity=firm.quantity,
                unit_price=_money(firm.unit_price),
                price_ceiling=_money(firm.unit_price),
                term=Interval(start=firm.term.start, end=firm.term.end),
                expires_at=firm.expires_at,
                strategy=strategy,
                proof=firm.proof,
            )
        )


def _wire_term(term: Interval) -> wire.WireTerm:
    return wire.WireTerm(start=term.start, end=term.end)


def _money(amount: wire.WireMoney) -> Money:
    return Money(amount=amount.amount, currency=amount.currency)


def _fault(problem: ValidationError) -> str:
    first = problem.errors(include_input=False, include_url=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg'].lower()}"
