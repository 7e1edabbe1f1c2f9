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
from engine.model.ids import HoldId, NodeId, ReservationId
from engine.model.market import (
    Hold,
    Offer,
    OfferQuery,
    Quote,
    ReclaimNotice,
    Reservation,
)
from engine.model.money import Money
from engine.model.value import Interval
from providers.base import (
    AuctionOutcome,
    AuctionRule,
    AuctionTerms,
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
from providers.network.reading import Reading, fault, money, wire_term
from providers.network.signing import Unproven, thumbprints
from providers.network.trust import Trust
from providers.network.wire_records import ReclaimEvent
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
        self._reading = Reading(settings.name, settings.account)
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
        rejections = [self._reading.rejection(bad.offer_id, bad.reason) for bad in page.faults]
        check = self._trust.offer_check() if page.offers else None
        offers = []
        for posted in page.offers:
            if posted.region not in regions or posted.option not in need.options:
                continue  # a network may know fewer filters than we ask for
            try:
                offer = self._reading.offer(posted)
                if check is not None:
                    check(posted)
            except (ValidationError, Unproven) as problem:
                reason = problem.reason if isinstance(problem, Unproven) else fault(problem)
                rejections.append(self._reading.rejection(posted.offer_id, reason))
                continue
            if offer.resources.holds(least) >= 1:
                offers.append(offer)
        return OfferBook(offers=tuple(offers), rejections=tuple(rejections))

    def quote(self, offer: Offer, quantity: int, term: Interval) -> Quote:
        nonce = uuid4().hex
        asked = self._client.quote(self._reading.own_id(offer.id), quantity=quantity, term=wire_term(term), nonce=nonce)
        self._prove(asked, lambda: self._trust.check_fresh_quote(asked, wire_term(term), nonce=nonce))
        return self._reading.quote(asked, offer, quantity, strategy="fixed_price")

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
        talk = self._client.negotiate(self._reading.own_id(offer.id), quantity=quantity, term=wire_term(term), key=key)
        if talk.state is NegotiationState.OPEN:
            proposed = wire.WireMoney(amount=price.amount, currency=price.currency)
            talk = self._client.propose(talk.negotiation_id, proposed, key=f"{key}:{round_number}")
        firm = talk.quote
        self._prove(firm, lambda: self._trust.check_keyed_quote(firm, key=key))
        return RfqAnswer(
            reply=_REPLIES[talk.reply],
            quote=self._reading.quote(firm, offer, quantity, strategy="rfq"),
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
            term=wire_term(term),
            key=key,
        )
        if decided is None:
            return AuctionOutcome(won=False, reason=f"the bidding went above {price}, or others were faster")
        clearing = None if decided.clearing_price is None else money(decided.clearing_price)
        if decided.status is wire.BidStatus.LOST:
            reason = decided.reason or "outbid"
            return AuctionOutcome(won=False, clearing_price=clearing, bid=money(decided.unit_price), reason=reason)
        if decided.quote is None:
            raise ProviderAnswerInvalid(f"{self.name}: auction {auction_id} was won, but no quote came with it")
        asked = money(decided.quote.unit_price)
        if asked.currency != price.currency or price < asked:
            raise PriceMismatch(f"{self.name}: bid {price} in {auction_id}, asked to pay {asked}")
        firm = decided.quote
        self._prove(firm, lambda: self._trust.check_keyed_quote(firm, key=key))
        won = self._reading.quote(firm, offer, quantity, strategy="auction")
        return AuctionOutcome(won=True, clearing_price=clearing, quote=won, bid=money(decided.unit_price))

    def auction_terms(self, offer: Offer) -> AuctionTerms:
        auction_id = self._auction_id(offer)
        found = find_auction(self._client, auction_id)
        return AuctionTerms(
            rule=_RULES[found.rule], reserve_price=money(found.reserve_price), closes_at=found.closes_at
        )

    # --- SupportsHolds --------------------------------------------------------------------------------------------

    def hold(self, quote: Quote, *, key: str) -> Hold:
        """``quote.quantity`` may be less than what was quoted: several holds may share one quote."""
        try:
            kept = self._client.hold(self._reading.own_id(quote.id), quantity=quote.quantity, key=key)
        except NotFound as gone:
            raise QuoteExpired(f"{self.name}: the network no longer knows quote {quote.id}", why=gone.what) from gone
        if kept.state in (wire.HoldState.LAPSED, wire.HoldState.RELEASED):
            raise QuoteExpired(f"{self.name}: hold {kept.hold_id} is {kept.state.value}")
        if money(kept.unit_price) != quote.unit_price or kept.quantity != quote.quantity:
            self._client.release(kept.hold_id)
            raise PriceMismatch(
                f"{self.name}: quoted {quote.quantity} at {quote.unit_price}, "
                f"held {kept.quantity} at {money(kept.unit_price)}"
            )
        return Hold(
            id=HoldId(self._reading.our_id(kept.hold_id)),
            key=key,
            quote=quote,
            expires_at=kept.expires_at,
            provider_reference=kept.hold_id,
        )

    def confirm(self, hold: Hold) -> Reservation:
        """Pays for the units on which no node was started yet; those that were are paid for by running."""
        reference = hold.provider_reference or self._reading.own_id(hold.id)
        paid = self._client.pay(reference, key=f"{hold.key}:pay")
        if paid.state is not wire.HoldState.PAID and paid.started < paid.quantity:
            raise NotFound(f"{self.name}: hold {reference} is {paid.state.value}")
        if money(paid.unit_price) != hold.quote.unit_price:
            raise PriceMismatch(
                f"{self.name}: hold {reference} was taken at {hold.quote.unit_price}, "
                f"but is charged at {money(paid.unit_price)}",
                next_step="the network's signed promise is the quote's proof, in the plan",
            )
        return Reservation(
            id=ReservationId(self._reading.our_id(reference)),
            hold_id=hold.id,
            quote=hold.quote,
            confirmed_at=paid.paid_at or self._clock.now(),
            provider_reference=reference,
        )

    def release(self, hold_id: str) -> None:
        """A hold (its units without a node) or one running reservation."""
        reference = self._reading.own_id(hold_id)
        self._client.release(reference)
        self._client.delete_reservation(reference)

    # --- SupportsInventory, SupportsReclaimNotices, SupportsEventStream, SupportsBills ------------------------------

    def instances(self) -> Sequence[InstanceRecord]:
        return self._reading.read(
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
        return [self._reading.notice(event) for event in self._client.events(since) if isinstance(event, ReclaimEvent)]

    def tells_events(self) -> bool:
        return self._client.terms().event_stream

    def event_stream(self, after: str | None, *, wait_seconds: float) -> Generator[ProviderEvent, None, None]:
        """``after`` is an event's number on the network, as text."""
        with closing(self._client.stream(int(after or 0), wait_seconds=wait_seconds)) as stream:
            for event in stream:
                yield self._reading.event(event)

    def bill(self, period: Interval) -> BillDelivery:
        document = self._client.bill(period.start, period.end)
        invoice = document.invoice
        return self._reading.read(
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
                    total=money(invoice.total),
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

    def _auction_id(self, offer: Offer) -> str:
        if offer.auction_id is None:
            raise NotFound(f"{self.name}: {offer.id} is not sold by auction")
        return offer.auction_id

    def _prove(self, firm: wire.WireQuote, check: Callable[[], None]) -> None:
        """Raises ProviderAnswerInvalid on a price that the network cannot be held to."""
        try:
            check()
        except Unproven as problem:
            raise ProviderAnswerInvalid(f"{self.name}: quote {firm.quote_id} is refused", why=problem.reason) from None
