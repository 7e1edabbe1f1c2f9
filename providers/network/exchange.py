"""The reference network behind the Open Capacity API: one market in memory, safe for threads.

Every call takes the tenant that asks, runs under one lock, and first closes the auction rounds that are due; what is
free, held or lapsed follows from the clock. Purchases carry an idempotency key. Refusals are ``stock.Refused``.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from hashlib import sha256
from uuid import uuid4

from engine.clock import Clock
from engine.model.capacity import Resources
from engine.model.market import PurchaseOption
from engine.model.value import Interval
from providers.network import wire
from providers.network.auction import AuctionHouse, Bid, Rivals, nobody
from providers.network.records import (
    Hold,
    Quote,
    Reclaim,
    Span,
    Unit,
    bid_view,
    hold_view,
    idle_spans,
    instance_view,
    list_price,
    reservation_view,
)
from providers.network.statement import make_bill
from providers.network.stock import AuctionRules, Listing, Lot, Refused, lots
from providers.network.wire import HoldState, ProblemCode, QuoteKind

_PRICE_STEP = Decimal("0.000001")


@dataclass(frozen=True)
class Terms:
    """How a network does business. ``meter_speed`` metered hours pass in one real hour."""

    name: str
    currency: str = "USD"
    offer_lasts: timedelta = timedelta(minutes=5)
    quote_lasts: timedelta = timedelta(minutes=5)
    hold_lasts: timedelta = timedelta(minutes=15)
    meter_speed: Decimal = Decimal(1)


class Exchange:
    """``rivals`` bid against the tenants in auctions; while ``sold_out()`` is true nothing is sold."""

    def __init__(
        self,
        listings: Sequence[Listing],
        terms: Terms,
        *,
        clock: Clock,
        rivals: Rivals = nobody,
        sold_out: Callable[[], bool] = lambda: False,
        new_id: Callable[[], str] = lambda: uuid4().hex,
    ) -> None:
        self._terms, self._clock, self._sold_out, self._new_id = terms, clock, sold_out, new_id
        self._lock = threading.RLock()
        self._lots = lots(listings, clock.now())
        self._house = AuctionHouse(self._lots, rivals, self._award)
        self._quotes: dict[str, Quote] = {}
        self._holds: dict[str, Hold] = {}
        self._bids: dict[str, Bid] = {}
        self._units: dict[str, Unit] = {}
        self._events: list[tuple[str | None, wire.PriceEvent | wire.ReclaimEvent]] = []
        self._keys: dict[tuple[str, str, str], tuple[str, str]] = {}

    # --- offers and quotes ----------------------------------------------------------------------------------------

    def offers(
        self, at_least: Resources, regions: Sequence[str] = (), options: Sequence[PurchaseOption] = ()
    ) -> list[wire.WireOffer]:
        """Everything whose one unit carries ``at_least``, sold out or not."""
        with self._lock:
            now = self._caught_up()
            return [
                self._offer(lot, now)
                for lot in self._lots.values()
                if _carries(lot.listing.resources, at_least)
                and (not regions or lot.listing.region in regions)
                and (not options or lot.listing.option in options)
            ]

    def quote(self, tenant: str, request: wire.QuoteRequest) -> wire.WireQuote:
        """Firm until it expires; keeps no units (a hold does)."""
        with self._lock:
            now = self._caught_up()
            lot = self._lot(request.offer_id)
            if lot.listing.auction is not None:
                raise Refused(ProblemCode.INVALID_REQUEST, f"{request.offer_id} is sold by auction: bid for it")
            _check_term(request.term, now)
            self._check_free(lot, request.quantity, now)
            price, kind = self._ask_or_counter(lot, request.limit_price)
            return self._new_quote(tenant, lot, request.quantity, price, request.term, kind, now).firm

    def _ask_or_counter(self, lot: Lot, limit: wire.WireMoney | None) -> tuple[Decimal, QuoteKind]:
        """Half way to the buyer, but never below the listing's lowest share of the ask."""
        if limit is None or (self._in_our_currency(limit) and limit.amount >= lot.ask):
            return lot.ask, QuoteKind.ASK
        lowest = (lot.ask * lot.listing.lowest_share_of_ask).quantize(_PRICE_STEP, rounding=ROUND_HALF_EVEN)
        half_way = ((lot.ask + limit.amount) / 2).quantize(_PRICE_STEP, rounding=ROUND_HALF_EVEN)
        return max(lowest, half_way), QuoteKind.COUNTER

    # --- auctions -------------------------------------------------------------------------------------------------

    def auctions(self) -> list[wire.WireAuction]:
        with self._lock:
            now = self._caught_up()
            return [self._auction(lot, lot.listing.auction, now) for lot in self._lots.values() if lot.listing.auction]

    def bid(self, tenant: str, auction_id: str, request: wire.BidRequest, *, key: str) -> wire.WireBid:
        """Enters the round that is open. Same key, same bid: the first one stands, whatever a repeat asks."""
        with self._lock:
            now = self._caught_up()
            known = self._replayed(tenant, "bid", key, auction_id)
            if known is not None:
                return self._bid_view(self._bids[known])
            lot = self._lot(auction_id)
            rules = lot.listing.auction
            if rules is None:
                raise Refused(ProblemCode.NOT_FOUND, f"no auction {auction_id}")
            _check_term(request.term, now)
            self._in_our_currency(request.unit_price)
            if request.unit_price.amount <= 0:
                raise Refused(ProblemCode.INVALID_REQUEST, "a bid must be above 0")
            round_number = rules.round_at(now)
            bid = Bid(
                bid_id=self._id("bid"),
                tenant=tenant,
                auction_id=auction_id,
                round_number=round_number,
                quantity=request.quantity,
                unit_price=request.unit_price.amount,
                term=Interval(start=request.term.start, end=request.term.end),
                decides_at=rules.closes_at(round_number, now),
            )
            self._bids[bid.bid_id] = bid
            self._house.enter(bid)
            self._remember(tenant, "bid", key, auction_id, bid.bid_id)
            return self._bid_view(bid)

    def bid_result(self, tenant: str, auction_id: str, bid_id: str) -> wire.WireBid:
        with self._lock:
            self._caught_up()
            bid = self._bids.get(bid_id)
            if bid is None or bid.tenant != tenant or bid.auction_id != auction_id:
                raise Refused(ProblemCode.NOT_FOUND, f"no bid {bid_id}")
            return self._bid_view(bid)

    def _award(self, bid: Bid, units: int, unit_price: Decimal, at: datetime) -> str:
        """A won quote keeps its units until it expires."""
        lot = self._lots[bid.auction_id]
        term = wire.WireTerm(start=bid.term.start, end=bid.term.end)
        won = self._new_quote(bid.tenant, lot, units, unit_price, term, QuoteKind.AUCTION, at)
        lot.claim(won.firm.quote_id, units, won.firm.expires_at, at)
        return won.firm.quote_id

    # --- holds ----------------------------------------------------------------------------------------------------

    def hold(self, tenant: str, request: wire.HoldRequest, *, key: str) -> wire.WireHold:
        """Same key, same hold, as long as it lives."""
        with self._lock:
            now = self._caught_up()
            known = self._live_hold(tenant, request, key, now)
            if known is not None:
                return hold_view(known, now)
            quote = self._quotes.get(request.quote_id)
            if quote is None or quote.tenant != tenant:
                raise Refused(ProblemCode.NOT_FOUND, f"no quote {request.quote_id}")
            if quote.firm.expires_at <= now:
                raise Refused(ProblemCode.QUOTE_EXPIRED, f"quote {request.quote_id} expired")
            if quote.taken + request.quantity > quote.firm.quantity:
                left = quote.firm.quantity - quote.taken
                raise Refused(ProblemCode.INSUFFICIENT_CAPACITY, f"{left} of {quote.firm.quantity} quoted units left")
            hold = Hold(tenant, self._id("hold"), quote, request.quantity, now + self._terms.hold_lasts)
            if quote.firm.kind is QuoteKind.AUCTION:
                quote.lot.give_back(request.quote_id, request.quantity)
            else:
                self._check_free(quote.lot, request.quantity, now)
            quote.lot.claim(hold.hold_id, request.quantity, hold.expires_at, now)
            quote.taken += request.quantity
            self._holds[hold.hold_id] = hold
            self._remember(tenant, "hold", key, request.model_dump_json(), hold.hold_id)
            return hold_view(hold, now)

    def _live_hold(self, tenant: str, request: wire.HoldRequest, key: str, now: datetime) -> Hold | None:
        """What this key holds already. A key whose hold was released or has lapsed is free for another one."""
        made = self._keys.get((tenant, "hold", key))
        if made is not None and self._holds[made[1]].state(now) not in (HoldState.HELD, HoldState.PAID):
            return None
        known = self._replayed(tenant, "hold", key, request.model_dump_json())
        return None if known is None else self._holds[known]

    def hold_state(self, tenant: str, hold_id: str) -> wire.WireHold:
        with self._lock:
            now = self._caught_up()
            return hold_view(self._hold(tenant, hold_id), now)

    def pay(self, tenant: str, hold_id: str) -> wire.WireHold:
        """Units without a node are now charged, and lapse no more. Idempotent by its nature."""
        with self._lock:
            now = self._caught_up()
            hold = self._hold(tenant, hold_id)
            if hold.started < hold.quantity and hold.state(now) is HoldState.HELD:
                hold.paid_at = now
                hold.quote.lot.keep_until(hold_id, None)
            elif hold.started < hold.quantity and hold.state(now) is not HoldState.PAID:
                raise Refused(ProblemCode.HOLD_LAPSED, f"hold {hold_id} is {hold.state(now).value}")
            return hold_view(hold, now)

    def release(self, tenant: str, hold_id: str) -> None:
        """Gives up the units without a node: while their quote lasts they can be held again. Idempotent."""
        with self._lock:
            now = self._caught_up()
            hold = self._hold(tenant, hold_id)
            if hold.released:
                return
            if hold.paid_at is not None:
                hold.idle_spans += [(hold.paid_at, now)] * (hold.quantity - hold.started)
            hold.released = True
            hold.quote.lot.give_back(hold_id)
            hold.quote.put_back(hold.quantity - hold.started, now)

    # --- reservations ---------------------------------------------------------------------------------------------

    def confirm(self, tenant: str, hold_id: str, request: wire.ConfirmRequest, *, key: str) -> wire.WireReservation:
        """Starts one unit as ``request.node``; the same key, or the same running node and token, is the same unit."""
        with self._lock:
            now = self._caught_up()
            # User data may hold a one-time secret that a second attempt makes afresh: it is no part of what is asked.
            identity = f"{request.node}\n{request.token}"
            known = self._replayed(tenant, "confirm", key, identity)
            if known is not None:
                return reservation_view(self._units[known], now, self._terms.currency)
            running = next((unit for unit in self._running(tenant, now) if unit.node == request.node), None)
            if running is not None and running.token != request.token:
                raise Refused(ProblemCode.NODE_TAKEN, f"node {request.node} already runs under another token")
            unit = running or self._start(self._hold(tenant, hold_id), request, now)
            self._remember(tenant, "confirm", key, identity, unit.reservation_id)
            return reservation_view(unit, now, self._terms.currency)

    def _start(self, hold: Hold, request: wire.ConfirmRequest, now: datetime) -> Unit:
        if hold.started == hold.quantity:
            raise Refused(ProblemCode.INSUFFICIENT_CAPACITY, f"every unit of hold {hold.hold_id} is started")
        if hold.state(now) not in (HoldState.HELD, HoldState.PAID):
            raise Refused(ProblemCode.HOLD_LAPSED, f"hold {hold.hold_id} is {hold.state(now).value}")
        unit = Unit(
            reservation_id=self._id("res"),
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
        hold.started += 1
        if hold.paid_at is not None:
            hold.idle_spans.append((hold.paid_at, now))
        self._units[unit.reservation_id] = unit
        return unit

    def reservations(self, tenant: str) -> list[wire.WireReservation]:
        """The running ones."""
        with self._lock:
            now = self._caught_up()
            return [reservation_view(unit, now, self._terms.currency) for unit in self._running(tenant, now)]

    def reservation(self, tenant: str, reservation_id: str) -> wire.WireReservation:
        with self._lock:
            now = self._caught_up()
            return reservation_view(self._unit(tenant, reservation_id), now, self._terms.currency)

    def end(self, tenant: str, reservation_id: str) -> None:
        """Idempotent."""
        with self._lock:
            now = self._caught_up()
            unit = self._unit(tenant, reservation_id)
            if unit.ended_at(now) is None:
                unit.stopped_at = now
                self._lots[unit.listing.offer_id].give_back(reservation_id)

    def instances(self, tenant: str) -> list[wire.WireInstance]:
        with self._lock:
            now = self._caught_up()
            return [instance_view(unit) for unit in self._running(tenant, now)]

    # --- what happened --------------------------------------------------------------------------------------------

    def events(self, tenant: str, since: datetime) -> list[wire.PriceEvent | wire.ReclaimEvent]:
        with self._lock:
            return [event for owner, event in self._events if owner in (None, tenant) and event.at >= since]

    def bill(self, tenant: str, period: Interval) -> wire.WireBill:
        if period.end <= period.start:
            raise Refused(ProblemCode.INVALID_REQUEST, "the period ends before it starts")
        with self._lock:
            spans = self._spans(tenant, self._caught_up())
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
            now = self._caught_up()
            lot = self._lot(offer_id)
            lot.prices.append((now, price))
            event = wire.PriceEvent(event_id=len(self._events) + 1, at=now, offer_id=offer_id, price=self._money(price))
            self._events.append((None, event))

    def reclaim(self, reservation_id: str, notice: timedelta, reason: str = "reclaimed") -> None:
        """Give notice once; the unit ends by itself when it is over. Raises Refused."""
        with self._lock:
            now = self._caught_up()
            unit = self._units.get(reservation_id)
            if unit is None:
                raise Refused(ProblemCode.NOT_FOUND, f"no reservation {reservation_id}")
            if unit.reclaim is not None or unit.ended_at(now) is not None:
                return
            unit.reclaim = Reclaim(seen_at=now, at=now + notice, reason=reason)
            self._lots[unit.listing.offer_id].keep_until(reservation_id, unit.reclaim.at)
            event = wire.ReclaimEvent(
                event_id=len(self._events) + 1,
                at=now,
                reservation_id=reservation_id,
                node=unit.node,
                reclaim_at=unit.reclaim.at,
                reason=reason,
            )
            self._events.append((unit.tenant, event))

    def units(self) -> list[Unit]:
        """Every unit that was ever started, with its user data: for the hosts behind the network."""
        with self._lock:
            self._caught_up()
            return list(self._units.values())

    def listings(self) -> list[Listing]:
        return [lot.listing for lot in self._lots.values()]

    # --- inside ---------------------------------------------------------------------------------------------------

    def _caught_up(self) -> datetime:
        now = self._clock.now()
        self._house.settle(now)
        return now

    def _id(self, kind: str) -> str:
        return f"{kind}-{self._new_id()}"

    def _money(self, amount: Decimal) -> wire.WireMoney:
        return wire.WireMoney(amount=amount, currency=self._terms.currency)

    def _in_our_currency(self, money: wire.WireMoney) -> bool:
        if money.currency != self._terms.currency:
            raise Refused(ProblemCode.INVALID_REQUEST, f"this network trades in {self._terms.currency}")
        return True

    def _lot(self, offer_id: str) -> Lot:
        if offer_id not in self._lots:
            raise Refused(ProblemCode.NOT_FOUND, f"no offer {offer_id}")
        return self._lots[offer_id]

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

    def _check_free(self, lot: Lot, quantity: int, now: datetime) -> None:
        free = 0 if self._sold_out() else lot.free(now)
        if free < quantity:
            raise Refused(
                ProblemCode.INSUFFICIENT_CAPACITY, f"{quantity} of {lot.listing.offer_id} wanted, {free} free"
            )

    def _new_quote(
        self, tenant: str, lot: Lot, quantity: int, price: Decimal, term: wire.WireTerm, kind: QuoteKind, at: datetime
    ) -> Quote:
        quote = wire.WireQuote(
            quote_id=self._id("quote"),
            offer_id=lot.listing.offer_id,
            quantity=quantity,
            unit_price=self._money(price),
            term=term,
            expires_at=at + self._terms.quote_lasts,
            kind=kind,
        )
        self._quotes[quote.quote_id] = Quote(tenant, lot, quote)
        return self._quotes[quote.quote_id]

    def _replayed(self, tenant: str, verb: str, key: str, asked: str) -> str | None:
        """What this key bought before, if anything. Raises Refused when the key was used for something else."""
        known = self._keys.get((tenant, verb, key))
        if known is None:
            return None
        if known[0] != _fingerprint(asked):
            raise Refused(ProblemCode.KEY_REUSED, "this idempotency key was used for another request")
        return known[1]

    def _remember(self, tenant: str, verb: str, key: str, asked: str, made: str) -> None:
        self._keys[tenant, verb, key] = (_fingerprint(asked), made)

    def _spans(self, tenant: str, now: datetime) -> list[Span]:
        spans = []
        for unit in self._units.values():
            if unit.tenant == tenant:
                listed = list_price(self._lots[unit.listing.offer_id], unit.unit_price, unit.started_at)
                end = unit.ended_at(now) or now
                tags = tuple(sorted(unit.tags.items()))
                spans.append(
                    Span(unit.reservation_id, unit.listing, listed, unit.unit_price, unit.started_at, end, True, tags)
                )
        for hold in self._holds.values():
            if hold.tenant == tenant and hold.paid_at is not None:
                spans += idle_spans(hold, hold.paid_at, now)
        return spans

    def _offer(self, lot: Lot, now: datetime) -> wire.WireOffer:
        listing = lot.listing
        history = self._house.hourly_prices(listing.offer_id, now) if listing.auction else lot.prices
        return wire.WireOffer(
            offer_id=listing.offer_id,
            region=listing.region,
            zone=listing.zone,
            instance_type=listing.instance_type,
            resources=wire.WireResources.model_validate(listing.resources.model_dump()),
            performance=listing.performance,
            option=listing.option,
            price=self._money(lot.ask),
            price_at=now,
            price_history=tuple(wire.WirePricePoint(at=at, price=self._money(price)) for at, price in history),
            available=0 if self._sold_out() else lot.free(now),
            interruption_per_month=listing.interruption_per_month,
            correlation_group=listing.correlation_group,
            delivery=wire.DeliveryWindow(earliest=now, latest=now + listing.starts_within),
            expires_at=now + self._terms.offer_lasts,
            auction_id=listing.offer_id if listing.auction else None,
        )

    def _bid_view(self, bid: Bid) -> wire.WireBid:
        return bid_view(bid, self._quotes[bid.quote_id] if bid.quote_id else None, self._terms.currency)

    def _auction(self, lot: Lot, rules: AuctionRules, now: datetime) -> wire.WireAuction:
        return wire.WireAuction(
            auction_id=lot.listing.offer_id,
            offer_id=lot.listing.offer_id,
            rule=rules.rule,
            reserve_price=self._money(lot.ask),
            available=lot.free(now),
            period_seconds=rules.period_seconds,
            closes_at=rules.closes_at(rules.round_at(now), now),
            recent=tuple(
                wire.WireRound(closed_at=at, clearing_price=self._money(price))
                for at, price in self._house.recent(lot.listing.offer_id, now)
            ),
        )


def _carries(unit: Resources, at_least: Resources) -> bool:
    return (
        unit.vcpus >= at_least.vcpus
        and unit.memory_gib >= at_least.memory_gib
        and unit.storage_iops >= at_least.storage_iops
        and unit.network_mbps >= at_least.network_mbps
    )


def _check_term(term: wire.WireTerm, now: datetime) -> None:
    if term.end <= term.start or term.end <= now:
        raise Refused(ProblemCode.INVALID_REQUEST, "the term must end after its start and after now")


def _fingerprint(asked: str) -> str:
    return sha256(asked.encode()).hexdigest()
