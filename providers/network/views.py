"""How what a network sells and remembers is shown on the wire. Pure."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import Decimal

from providers.network import wire
from providers.network.auction import Bid
from providers.network.records import Hold, Quote, Unit
from providers.network.stock import AuctionRules, Lot

Prices = Iterable[tuple[datetime, Decimal]]


def offer_view(
    lot: Lot, history: Prices, now: datetime, *, currency: str, lasts: timedelta, sold_out: bool
) -> wire.WireOffer:
    listing = lot.listing
    return wire.WireOffer(
        offer_id=listing.offer_id,
        region=listing.region,
        zone=listing.zone,
        instance_type=listing.instance_type,
        resources=resources_view(lot),
        performance=listing.performance,
        measured=listing.measured,
        option=listing.option,
        price=wire.WireMoney(amount=lot.ask, currency=currency),
        price_at=now,
        price_history=tuple(
            wire.WirePricePoint(at=at, price=wire.WireMoney(amount=price, currency=currency)) for at, price in history
        ),
        available=0 if sold_out else lot.free(now),
        interruption_per_month=listing.interruption_per_month,
        correlation_group=listing.correlation_group,
        delivery=wire.DeliveryWindow(earliest=now, latest=now + listing.starts_within),
        expires_at=now + lasts,
        auction_id=listing.offer_id if listing.auction else None,
    )


def resources_view(lot: Lot) -> wire.WireResources:
    return wire.WireResources.model_validate(lot.listing.resources.model_dump())


def shard_types(lots: Iterable[Lot], now: datetime, *, currency: str, sold_out: bool) -> list[wire.WireShardType]:
    """In order of their names; the places of one in order of region and zone."""
    by_type: dict[str, list[Lot]] = {}
    for lot in lots:
        by_type.setdefault(lot.listing.instance_type, []).append(lot)
    return [
        wire.WireShardType(
            instance_type=name,
            resources=resources_view(sold[0]),
            performance=sold[0].listing.performance,
            measured=sold[0].listing.measured,
            places=tuple(_places(sold, now, currency, sold_out)),
        )
        for name, sold in sorted(by_type.items())
    ]


def _places(sold: Iterable[Lot], now: datetime, currency: str, sold_out: bool) -> Iterable[wire.ShardTypePlace]:
    by_place: dict[tuple[str, str], list[Lot]] = {}
    for lot in sold:
        by_place.setdefault((lot.listing.region, lot.listing.zone), []).append(lot)
    for (region, zone), here in sorted(by_place.items()):
        yield wire.ShardTypePlace(
            region=region,
            zone=zone,
            options=tuple(sorted({lot.listing.option for lot in here})),
            available=0 if sold_out else sum(lot.free(now) for lot in here),
            price_from=wire.WireMoney(amount=min(lot.ask for lot in here), currency=currency),
        )


def auction_view(
    lot: Lot, rules: AuctionRules, recent: Prices, now: datetime, *, currency: str, standing_price: Decimal | None
) -> wire.WireAuction:
    def money(amount: Decimal) -> wire.WireMoney:
        return wire.WireMoney(amount=amount, currency=currency)

    return wire.WireAuction(
        auction_id=lot.listing.offer_id,
        offer_id=lot.listing.offer_id,
        rule=rules.rule,
        reserve_price=money(lot.ask),
        available=lot.free(now),
        period_seconds=rules.period_seconds,
        closes_at=rules.closes_at(rules.round_at(now), now),
        standing_price=None if standing_price is None else money(standing_price),
        recent=tuple(wire.WireRound(closed_at=at, clearing_price=money(price)) for at, price in recent),
    )


def bid_view(bid: Bid, quote: Quote | None, currency: str, leading: int | None = None) -> wire.WireBid:
    """``leading``: units that a pending bid of an open ascending round leads for."""
    decided = wire.BidStatus.WON if bid.won else wire.BidStatus.LOST
    pending = wire.BidStatus.RAISED if bid.raised_by else wire.BidStatus.PENDING
    cleared = bid.clearing_price
    return wire.WireBid(
        bid_id=bid.bid_id,
        auction_id=bid.auction_id,
        status=decided if bid.decided else pending,
        quantity=bid.quantity,
        unit_price=wire.WireMoney(amount=bid.unit_price, currency=currency),
        decides_at=bid.decides_at,
        clearing_price=None if cleared is None else wire.WireMoney(amount=cleared, currency=currency),
        leading=None if bid.decided or bid.raised_by else leading,
        quote=quote.firm if quote else None,
        reason=bid.reason,
        raised_by=bid.raised_by,
    )


def hold_view(hold: Hold, now: datetime) -> wire.WireHold:
    return wire.WireHold(
        hold_id=hold.hold_id,
        quote_id=hold.quote.firm.quote_id,
        quantity=hold.quantity,
        started=hold.started,
        unit_price=hold.quote.firm.unit_price,
        state=hold.state(now),
        expires_at=hold.expires_at,
        paid_at=hold.paid_at,
    )


def reservation_view(unit: Unit, now: datetime, currency: str) -> wire.WireReservation:
    ended_at = unit.ended_at(now)
    listing = unit.listing
    return wire.WireReservation(
        reservation_id=unit.reservation_id,
        hold_id=unit.hold_id,
        offer_id=listing.offer_id,
        node=unit.node,
        token=unit.token,
        region=listing.region,
        zone=listing.zone,
        instance_type=listing.instance_type,
        option=listing.option,
        unit_price=wire.WireMoney(amount=unit.unit_price, currency=currency),
        state=wire.ReservationState.ENDED if ended_at else wire.ReservationState.RUNNING,
        started_at=unit.started_at,
        ended_at=ended_at,
    )


def instance_view(unit: Unit) -> wire.WireInstance:
    return wire.WireInstance(
        instance_id=unit.reservation_id,
        node=unit.node,
        token=unit.token,
        region=unit.listing.region,
        zone=unit.listing.zone,
        instance_type=unit.listing.instance_type,
        state=wire.ReservationState.RUNNING,
        launched_at=unit.started_at,
    )
