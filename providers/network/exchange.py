"""The reference network behind the Open Capacity API: one market in memory, safe for threads.

Every call takes the tenant that asks, runs under one lock, and first closes the auction rounds that are due; what is
free, held or lapsed follows from the clock. Purchases carry an idempotency key. Refusals are ``stock.Refused``.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal

from engine.clock import Clock
from engine.model.capacity import Resources
from engine.model.market import PurchaseOption
from engine.model.value import Interval
from providers.network import wire
from providers.network.auction import Rivals, nobody
from providers.network.bidding import Bidding
from providers.network.book import Book, Terms, available, checked_term, uuid
from providers.network.records import Hold, Quote, Reclaim, Span, Unit, idle_spans, used_spans
from providers.network.signing import Signer
from providers.network.statement import make_bill
from providers.network.stock import Listing, Lot, Refused
from providers.network.talks import Talks, carries
from providers.network.views import hold_view, instance_view, offer_view, reservation_view, shard_types
from providers.network.wire import HoldState, ProblemCode, QuoteKind
from providers.network.wire_records import AnyEvent, CapacityEvent, PriceEvent, ReclaimEvent, WireBill

_KEPT_UNITS = (QuoteKind.AUCTION, QuoteKind.REVERSE)
"""Quotes whose units are set aside from the start."""


class Exchange:
    """``rivals`` bid against the tenants in auctions; while ``sold_out()`` is true nothing is sold.

    ``bidding`` are its auctions, ``talks`` its negotiations and reverse auctions.
    """

    def __init__(
        self,
        listings: Sequence[Listing],
        terms: Terms,
        *,
        clock: Clock,
        rivals: Rivals = nobody,
        sold_out: Callable[[], bool] = available,
        new_id: Callable[[], str] = uuid,
        signer: Signer | None = None,
    ) -> None:
        self._book = Book(listings, terms, clock=clock, sold_out=sold_out, new_id=new_id, signer=signer)
        self._terms, self._lock, self._lots = terms, self._book.lock, self._book.lots
        self.bidding, self.talks = Bidding(self._book, rivals), Talks(self._book)
        self._holds: dict[str, Hold] = {}
        self._units: dict[str, Unit] = {}
        self._told_free = {offer_id: lot.listing.units for offer_id, lot in self._lots.items()}

    # --- terms, offers and quotes -----------------------------------------------------------------------------------

    def terms(self, limit: wire.RatePolicy) -> wire.WireTerms:
        rules = {lot.listing.auction.rule for lot in self._lots.values() if lot.listing.auction}
        return wire.WireTerms(
            api_version=wire.API_VERSION,
            name=self._terms.name,
            currency=self._terms.currency,
            quote_lasts_seconds=self._terms.quote_lasts.total_seconds(),
            hold_lasts_seconds=self._terms.hold_lasts.total_seconds(),
            rate_limit=limit,
            negotiation_rounds=self._terms.negotiation_rounds,
            auction_rules=tuple(sorted(rules)),
            reverse_auctions=any(lot.listing.auction is None for lot in self._lots.values()),
            event_stream=True,
        )

    def keys(self) -> wire.KeyList:
        return wire.KeyList(keys=self._book.signer.keys)

    def shard_types(self) -> wire.ShardTypeList:
        with self._lock:
            now, sold_out = self._book.now(), self._book.sold_out()
            found = shard_types(self._lots.values(), now, currency=self._terms.currency, sold_out=sold_out)
            return wire.ShardTypeList(shard_types=tuple(found))

    def offers(
        self, at_least: Resources, regions: Sequence[str] = (), options: Sequence[PurchaseOption] = ()
    ) -> list[wire.WireOffer]:
        """Everything whose one unit carries ``at_least``, sold out or not; signed."""
        with self._lock:
            now = self._book.now()
            found = [
                self._offer(lot, now)
                for lot in self._lots.values()
                if carries(lot.listing.resources, at_least)
                and (not regions or lot.listing.region in regions)
                and (not options or lot.listing.option in options)
            ]
        return [self._book.signer.sign_offer(offer, now) for offer in found]

    def quote(self, tenant: str, request: wire.QuoteRequest) -> wire.WireQuote:
        """The posted price, firm until it expires; keeps no units (a hold does)."""
        with self._lock:
            now = self._book.now()
            lot = self._book.posted_lot(request.offer_id)
            term = checked_term(request.term, now)
            self._book.check_free(lot, request.quantity, now)
            return self._book.give_quote(
                tenant,
                lot,
                request.quantity,
                lot.ask,
                term,
                QuoteKind.ASK,
                now,
                nonce=request.nonce,
                lasts=_lasting(request.lasts_seconds),
            ).firm

    # --- holds ----------------------------------------------------------------------------------------------------

    def hold(self, tenant: str, request: wire.HoldRequest, *, key: str) -> wire.WireHold:
        """Same key, same hold, as long as it lives."""
        with self._lock:
            now = self._book.now()
            known = self._live_hold(tenant, request, key, now)
            if known is not None:
                return hold_view(known, now)
            quote = self._book.quotes.get(request.quote_id)
            if quote is None or quote.tenant != tenant:
                raise Refused(ProblemCode.NOT_FOUND, f"no quote {request.quote_id}")
            if quote.firm.expires_at <= now:
                raise Refused(ProblemCode.QUOTE_EXPIRED, f"quote {request.quote_id} expired")
            if quote.taken + request.quantity > quote.firm.quantity:
                left = quote.firm.quantity - quote.taken
                raise Refused(ProblemCode.INSUFFICIENT_CAPACITY, f"{left} of {quote.firm.quantity} quoted units left")
            lasts = min(self._terms.hold_lasts, _lasting(request.lasts_seconds) or self._terms.hold_lasts)
            hold = Hold(tenant, self._book.new_id("hold"), quote, request.quantity, now + lasts)
            self._take_from(quote, request.quantity, now)
            quote.lot.claim(hold.hold_id, request.quantity, hold.expires_at, now)
            quote.taken += request.quantity
            self._holds[hold.hold_id] = hold
            self._book.remember(tenant, "hold", key, request.model_dump_json(), hold.hold_id)
            return hold_view(hold, now)

    def _take_from(self, quote: Quote, units: int, now: datetime) -> None:
        """Units that a quote keeps are there; those of another one must be free. Raises Refused."""
        if quote.firm.kind in _KEPT_UNITS:
            quote.lot.give_back(quote.firm.quote_id, units)
        else:
            self._book.check_free(quote.lot, units, now)

    def _live_hold(self, tenant: str, request: wire.HoldRequest, key: str, now: datetime) -> Hold | None:
        """What this key holds already. A key whose hold was released or has lapsed is free for another one."""
        made = self._book.made_with(tenant, "hold", key)
        if made is not None and self._holds[made].state(now) not in (HoldState.HELD, HoldState.PAID):
            return None
        known = self._book.replayed(tenant, "hold", key, request.model_dump_json())
        return None if known is None else self._holds[known]

    def hold_state(self, tenant: str, hold_id: str) -> wire.WireHold:
        with self._lock:
            now = self._book.now()
            return hold_view(self._hold(tenant, hold_id), now)

    def pay(self, tenant: str, hold_id: str) -> wire.WireHold:
        """Units without a node are now charged, and lapse no more. Idempotent by its nature."""
        with self._lock:
            now = self._book.now()
            hold = self._hold(tenant, hold_id)
            if hold.started < hold.quantity and hold.state(now) is HoldState.HELD:
                hold.pay(now)
                hold.quote.lot.keep_until(hold_id, None)
            elif hold.started < hold.quantity and hold.state(now) is not HoldState.PAID:
                raise Refused(ProblemCode.HOLD_LAPSED, f"hold {hold_id} is {hold.state(now).value}")
            return hold_view(hold, now)

    def release(self, tenant: str, hold_id: str) -> None:
        """Gives up the units without a node: while their quote lasts they can be held again. Idempotent."""
        with self._lock:
            now = self._book.now()
            hold = self._hold(tenant, hold_id)
            if hold.released:
                return
            hold.release(now)
            hold.quote.lot.give_back(hold_id)
            hold.quote.put_back(hold.waiting, now)

    def resize_hold(self, tenant: str, hold_id: str, request: wire.ResizeHoldRequest, *, key: str) -> wire.WireHold:
        """More units at the same price while the quote lasts, or fewer at any time. Same key, same resize."""
        with self._lock:
            now, asked = self._book.now(), f"{hold_id}\n{request.model_dump_json()}"
            hold = self._hold(tenant, hold_id)
            if self._book.replayed(tenant, "resize", key, asked) is None:
                if hold.state(now) not in (HoldState.HELD, HoldState.PAID):
                    raise Refused(ProblemCode.HOLD_LAPSED, f"hold {hold_id} is {hold.state(now).value}")
                if request.quantity < hold.started:
                    raise Refused(ProblemCode.INVALID_REQUEST, f"{hold.started} units of hold {hold_id} are started")
                self._resize(hold, request.quantity, now)
                self._book.remember(tenant, "resize", key, asked, hold_id)
            return hold_view(hold, now)

    def _resize(self, hold: Hold, quantity: int, now: datetime) -> None:
        quote, more = hold.quote, quantity - hold.quantity
        if more > 0:
            if quote.firm.expires_at <= now:
                raise Refused(ProblemCode.QUOTE_EXPIRED, f"quote {quote.firm.quote_id} expired")
            if quote.taken + more > quote.firm.quantity:
                left = quote.firm.quantity - quote.taken
                raise Refused(ProblemCode.INSUFFICIENT_CAPACITY, f"{left} of {quote.firm.quantity} quoted units left")
            self._take_from(quote, more, now)
            quote.lot.give_back(hold.hold_id)
            until = None if hold.paid_at is not None else hold.expires_at
            quote.lot.claim(hold.hold_id, hold.waiting + more, until, now)
            quote.taken += more
        elif more < 0:
            quote.lot.give_back(hold.hold_id, -more)
            quote.put_back(-more, now)
        hold.resize(quantity, now)

    # --- reservations ---------------------------------------------------------------------------------------------

    def confirm(self, tenant: str, hold_id: str, request: wire.ConfirmRequest, *, key: str) -> wire.WireReservation:
        """Starts one unit as ``request.node``; the same key, or the same running node and token, is the same unit."""
        with self._lock:
            now = self._book.now()
            # User data may hold a one-time secret that a second attempt makes afresh: it is no part of what is asked.
            identity = f"{request.node}\n{request.token}"
            known = self._book.replayed(tenant, "confirm", key, identity)
            if known is not None:
                return reservation_view(self._units[known], now, self._terms.currency)
            running = next((unit for unit in self._running(tenant, now) if unit.node == request.node), None)
            if running is not None and running.token != request.token:
                raise Refused(ProblemCode.NODE_TAKEN, f"node {request.node} already runs under another token")
            unit = running or self._start(self._hold(tenant, hold_id), request, now)
            self._book.remember(tenant, "confirm", key, identity, unit.reservation_id)
            return reservation_view(unit, now, self._terms.currency)

    def _start(self, hold: Hold, request: wire.ConfirmRequest, now: datetime) -> Unit:
        if hold.started == hold.quantity:
            raise Refused(ProblemCode.INSUFFICIENT_CAPACITY, f"every unit of hold {hold.hold_id} is started")
        if hold.state(now) not in (HoldState.HELD, HoldState.PAID):
            raise Refused(ProblemCode.HOLD_LAPSED, f"hold {hold.hold_id} is {hold.state(now).value}")
        unit = Unit(
            reservation_id=self._book.new_id("res"),
            tenant=hold.tenant,
            hold_id=hold.hold_id,
            listing=hold.quote.lot.listing,
            node=request.node,
            token=request.token,
            user_data=request.user_data,
            tags={**request.tags, "shardwright-node": request.node, "shardwright-token": request.token},
            unit_price=hold.quote.firm.unit_price.amount,
            started_at=now,
        )
        hold.quote.lot.give_back(hold.hold_id, 1)
        hold.quote.lot.claim(unit.reservation_id, 1, None, now)
        hold.start_one(now)
        self._units[unit.reservation_id] = unit
        return unit

    def reservations(self, tenant: str) -> list[wire.WireReservation]:
        """The running ones."""
        with self._lock:
            now = self._book.now()
            return [reservation_view(unit, now, self._terms.currency) for unit in self._running(tenant, now)]

    def reservation(self, tenant: str, reservation_id: str) -> wire.WireReservation:
        with self._lock:
            now = self._book.now()
            return reservation_view(self._unit(tenant, reservation_id), now, self._terms.currency)

    def end(self, tenant: str, reservation_id: str) -> None:
        """Idempotent."""
        with self._lock:
            now = self._book.now()
            unit = self._unit(tenant, reservation_id)
            if unit.ended_at(now) is None:
                unit.stopped_at = now
                self._lots[unit.listing.offer_id].give_back(reservation_id)

    def resize(
        self, tenant: str, reservation_id: str, request: wire.ResizeRequest, *, key: str
    ) -> wire.WireReservation:
        """The unit goes on as one of another offer in its zone, at that offer's price. Same key, same resize."""
        with self._lock:
            now, asked = self._book.now(), f"{reservation_id}\n{request.model_dump_json()}"
            unit = self._unit(tenant, reservation_id)
            if self._book.replayed(tenant, "resize", key, asked) is None:
                if unit.ended_at(now) is not None or unit.reclaim is not None:
                    raise Refused(ProblemCode.INVALID_REQUEST, f"{reservation_id} has ended or is being taken back")
                lot = self._book.posted_lot(request.offer_id)
                if lot.listing.zone != unit.listing.zone:
                    raise Refused(ProblemCode.INVALID_REQUEST, f"{request.offer_id} is not in {unit.listing.zone}")
                if self._book.amount(request.limit_price, "a limit price") < lot.ask:
                    raise Refused(ProblemCode.PRICE_ABOVE_LIMIT, f"{request.offer_id} costs {lot.ask} an hour")
                if lot.listing.offer_id != unit.listing.offer_id:
                    self._book.check_free(lot, 1, now)
                    self._lots[unit.listing.offer_id].give_back(reservation_id)
                    lot.claim(reservation_id, 1, None, now)
                    unit.resize(lot.listing, lot.ask, now)
                self._book.remember(tenant, "resize", key, asked, reservation_id)
            return reservation_view(unit, now, self._terms.currency)

    def instances(self, tenant: str) -> list[wire.WireInstance]:
        with self._lock:
            now = self._book.now()
            return [instance_view(unit) for unit in self._running(tenant, now)]

    # --- what happened --------------------------------------------------------------------------------------------

    def events(self, tenant: str, since: datetime) -> list[AnyEvent]:
        with self._lock:
            self._tell_capacity(self._book.now())
            return self._book.events.since(tenant, since)

    def events_after(self, tenant: str, event_id: int) -> list[AnyEvent]:
        """Behind the last one that was seen; 0: all that are kept."""
        with self._lock:
            now = self._book.now()
            self._tell_capacity(now)
            return self._book.events.after(tenant, event_id, now)

    def _tell_capacity(self, now: datetime) -> None:
        """What is free follows from the clock, so a change is found when somebody looks."""
        for offer_id, lot in self._lots.items():
            free = 0 if self._book.sold_out() else max(0, lot.free(now))
            if free != self._told_free[offer_id]:
                self._told_free[offer_id] = free
                self._book.events.add(None, _capacity_changed(offer_id, free, now))

    def bill(self, tenant: str, period: Interval) -> WireBill:
        if period.end <= period.start:
            raise Refused(ProblemCode.INVALID_REQUEST, "the period ends before it starts")
        with self._lock:
            spans = self._spans(tenant, self._book.now())
        return make_bill(
            spans,
            period,
            issuer=self._terms.name,
            tenant=tenant,
            currency=self._terms.currency,
            meter_speed=self._terms.meter_speed,
        )

    # --- the operator's side --------------------------------------------------------------------------------------

    def change_price(self, offer_id: str, price: Decimal) -> None:
        """From now on this ask (of an auction: this reserve price). Firm prices stay. Raises Refused."""
        with self._lock:
            now = self._book.now()
            self._book.lot(offer_id).prices.append((now, price))
            posted = self._book.money(price)
            self._book.events.add(
                None, lambda number: PriceEvent(event_id=number, at=now, offer_id=offer_id, price=posted)
            )

    def reclaim(self, reservation_id: str, notice: timedelta, reason: str = "reclaimed") -> None:
        """Give notice once; the unit ends by itself when it is over. Raises Refused."""
        with self._lock:
            now = self._book.now()
            unit = self._units.get(reservation_id)
            if unit is None:
                raise Refused(ProblemCode.NOT_FOUND, f"no reservation {reservation_id}")
            if unit.reclaim is not None or unit.ended_at(now) is not None:
                return
            until, node = now + notice, unit.node
            unit.reclaim = Reclaim(seen_at=now, at=until, reason=reason)
            self._lots[unit.listing.offer_id].keep_until(reservation_id, until)
            self._book.events.add(
                unit.tenant,
                lambda number: ReclaimEvent(
                    event_id=number, at=now, reservation_id=reservation_id, node=node, reclaim_at=until, reason=reason
                ),
            )

    def units(self) -> list[Unit]:
        """Every unit that was ever started, with its user data: for the hosts behind the network."""
        with self._lock:
            self._book.now()
            return list(self._units.values())

    def listings(self) -> list[Listing]:
        return [lot.listing for lot in self._lots.values()]

    # --- inside ---------------------------------------------------------------------------------------------------

    def _hold(self, tenant: str, hold_id: str) -> Hold:
        hold = self._holds.get(hold_id)
        if hold is None or hold.tenant != tenant:
            raise Refused(ProblemCode.NOT_FOUND, f"no hold {hold_id}")
        return hold

    def _unit(self, tenant: str, reservation_id: str) -> Unit:
        unit = self._units.get(reservation_id)
        if unit is None or unit.tenant != tenant:
            raise Refused(ProblemCode.NOT_FOUND, f"no reservation {reservation_id}")
        return unit

    def _running(self, tenant: str, now: datetime) -> list[Unit]:
        return [unit for unit in self._units.values() if unit.tenant == tenant and unit.ended_at(now) is None]

    def _spans(self, tenant: str, now: datetime) -> list[Span]:
        spans = [
            span for unit in self._units.values() if unit.tenant == tenant for span in used_spans(unit, self._lots, now)
        ]
        for hold in self._holds.values():
            if hold.tenant == tenant and hold.paid_at is not None:
                spans += idle_spans(hold, hold.paid_at, now)
        return spans

    def _offer(self, lot: Lot, now: datetime) -> wire.WireOffer:
        history = self.bidding.hourly_prices(lot.listing.offer_id, now) if lot.listing.auction else lot.prices
        return offer_view(
            lot,
            history,
            now,
            currency=self._terms.currency,
            lasts=self._terms.offer_lasts,
            sold_out=self._book.sold_out(),
        )


def _lasting(seconds: float | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)


def _capacity_changed(offer_id: str, free: int, at: datetime) -> Callable[[int], CapacityEvent]:
    return lambda number: CapacityEvent(event_id=number, at=at, offer_id=offer_id, available=free)
