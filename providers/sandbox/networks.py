"""Two third-party networks that run on one machine: ``python -m providers.sandbox.networks --name harbor|agora``.

Both are the reference server of the Open Capacity API with something to sell: harbor posts fixed prices and meets a
counter-offer half way; agora sells by auction, each kind of machine by another rule (sealed second price, open
ascending, sealed first price), against rivals of different characters. Their prices lie below the clouds' list prices,
their stock is small. The bearer token is in the environment variable
OPEN_CAPACITY_TOKEN ("sandbox" where it is not set).
"""

import argparse
import base64
import hashlib
import os
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from joserfc.jwk import OKPKey
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.types import ASGIApp

from engine.clock import Clock, SystemClock
from engine.model.capacity import Resources
from engine.model.market import PurchaseOption
from engine.model.value import Interval
from providers.network.auction import Rivals, nobody
from providers.network.book import Terms
from providers.network.exchange import Exchange
from providers.network.records import Unit
from providers.network.server import create_app, problem
from providers.network.signing import Signer
from providers.network.statement import as_csv
from providers.network.stock import AuctionRules, Listing, Refused
from providers.network.wire import ProblemCode, WireAuctionRule
from providers.sandbox.cloud import FaultGate, Faults, ServerOptions, parse_options, sandbox_routes, serve
from providers.sandbox.contract import (
    Fault,
    InstanceState,
    MarketOption,
    PriceChange,
    ReclaimOrder,
    SandboxBill,
    SandboxInstance,
    SandboxNotice,
    listed,
)

TOKEN_VARIABLE = "OPEN_CAPACITY_TOKEN"  # noqa: S105 (a variable's name)
DEFAULT_TOKEN = "sandbox"  # noqa: S105 (a stand-in network on loopback)
_DEFAULT_REGIONS = {"harbor": ("harbor-eu",), "agora": ("agora-us",)}
_ROUND_SECONDS = 1.0
_PRICE_STEP = Decimal("0.0001")


@dataclass(frozen=True)
class Goods:
    """One kind of machine; ``price`` in USD per hour is what the network would post for it."""

    instance_type: str
    vcpus: float
    memory_gib: float
    storage_iops: float
    network_mbps: float
    performance: float
    price: Decimal
    units: int
    interruption_per_month: float


# The clouds ask about 0.042 to 0.05 per vCPU-hour on demand for such machines.
_HARBOR = (
    Goods("hb.small", 2, 4, 3000, 1000, 0.95, Decimal("0.0560"), 12, 0.01),
    Goods("hb.medium", 4, 16, 6000, 2000, 0.95, Decimal("0.1240"), 8, 0.01),
    Goods("hb.large", 8, 32, 12000, 4000, 0.95, Decimal("0.2420"), 4, 0.01),
    Goods("hb.memory", 4, 32, 6000, 2000, 0.9, Decimal("0.1630"), 6, 0.01),
)
_AGORA_RULES = {
    "ag.c2": WireAuctionRule.SEALED_SECOND_PRICE,
    "ag.c4": WireAuctionRule.OPEN_ASCENDING,
    "ag.g4": WireAuctionRule.SEALED_FIRST_PRICE,
}
_AGORA = (
    Goods("ag.c2", 2, 4, 2500, 750, 1.05, Decimal("0.0610"), 10, 0.03),
    Goods("ag.c4", 4, 8, 5000, 1500, 1.05, Decimal("0.1210"), 8, 0.03),
    Goods("ag.g4", 4, 16, 5000, 1500, 1.0, Decimal("0.1350"), 6, 0.03),
)


def harbor_listings(regions: Sequence[str]) -> list[Listing]:
    return [
        _listing("hb", goods, region, PurchaseOption.ON_DEMAND, ask=goods.price, lowest_share_of_ask=Decimal("0.94"))
        for region in regions
        for goods in _HARBOR
    ]


def agora_listings(regions: Sequence[str]) -> list[Listing]:
    """Reserve prices at 40 % of what the machine is worth; the rivals see to the rest."""
    return [
        _listing(
            "ag",
            goods,
            region,
            PurchaseOption.AUCTION,
            ask=_rounded(goods.price * Decimal("0.4")),
            auction=AuctionRules(_AGORA_RULES[goods.instance_type], _ROUND_SECONDS),
        )
        for region in regions
        for goods in _AGORA
    ]


def _listing(
    prefix: str,
    goods: Goods,
    region: str,
    option: PurchaseOption,
    *,
    ask: Decimal,
    lowest_share_of_ask: Decimal = Decimal(1),
    auction: AuctionRules | None = None,
) -> Listing:
    zone = f"{region}-a"
    return Listing(
        offer_id=f"{region}:{goods.instance_type}:{option.value}",
        region=region,
        zone=zone,
        instance_type=goods.instance_type,
        resources=Resources(
            vcpus=goods.vcpus,
            memory_gib=goods.memory_gib,
            storage_iops=goods.storage_iops,
            network_mbps=goods.network_mbps,
        ),
        performance=goods.performance,
        option=option,
        ask=ask,
        units=goods.units,
        correlation_group=f"{region}/{zone}/{prefix}",
        interruption_per_month=goods.interruption_per_month,
        lowest_share_of_ask=lowest_share_of_ask,
        auction=auction,
    )


Character = Callable[[random.Random, Decimal, int], list[Decimal]]
"""(chance, worth of a unit, units on offer) -> one bid per unit wanted."""


def _share(worth: Decimal, share: float) -> Decimal:
    return _rounded(worth * Decimal(repr(round(share, 6))))


def honest(chance: random.Random, worth: Decimal, units: int) -> list[Decimal]:
    """Wants a unit or two and bids what they are worth to it."""
    return [_share(worth, chance.uniform(0.55, 0.8))] * chance.randint(1, 2)


def bargain_hunter(chance: random.Random, worth: Decimal, units: int) -> list[Decimal]:
    """Bids low for everything."""
    return [_share(worth, chance.uniform(0.4, 0.55))] * units


def in_a_hurry(chance: random.Random, worth: Decimal, units: int) -> list[Decimal]:
    """Seldom there; then pays more than the machine is worth."""
    return [_share(worth, chance.uniform(0.95, 1.15))] * chance.randint(1, 3) if chance.random() < 0.15 else []


def crowd(chance: random.Random, worth: Decimal, units: int) -> list[Decimal]:
    """Many small buyers, each with its own idea of the worth."""
    return [_share(worth, min(1.0, chance.lognormvariate(-0.5, 0.15))) for _ in range(chance.randint(0, units))]


def agora_rivals(listings: Sequence[Listing], seed: int) -> Rivals:
    """The same round of the same lot always draws the same bids."""
    worth = {
        listing.offer_id: (goods.price, listing.units)
        for listing in listings
        for goods in _AGORA
        if goods.instance_type == listing.instance_type
    }

    def bids(offer_id: str, round_number: int) -> list[Decimal]:
        price, units = worth[offer_id]
        chance = random.Random(f"{seed}/{offer_id}/{round_number}")  # noqa: S311 (a market's noise)
        return [
            bid
            for character in (honest, honest, bargain_hunter, in_a_hurry, crowd)
            for bid in character(chance, price, units)
        ]

    return bids


class NetworkControl:
    """The /_sandbox side of one network."""

    def __init__(self, exchange: Exchange, faults: Faults, *, tenant: str, clock: Clock) -> None:
        self._exchange, self._faults, self._tenant, self._clock = exchange, faults, tenant, clock

    def instances(self) -> list[SandboxInstance]:
        now = self._clock.now()
        shown = [(_instance(unit, now), unit.ended_at(now)) for unit in self._exchange.units()]
        return [instance for instance, ended_at in shown if listed(instance, ended_at, now)]

    def notices(self) -> list[SandboxNotice]:
        now = self._clock.now()
        return [
            SandboxNotice(
                instance_id=unit.reservation_id,
                node=unit.node,
                seen_at=unit.reclaim.seen_at,
                at=unit.reclaim.at,
                reason=unit.reclaim.reason,
            )
            for unit in self._exchange.units()
            if unit.reclaim is not None and listed(_instance(unit, now), unit.ended_at(now), now)
        ]

    def reclaim(self, order: ReclaimOrder) -> None:
        try:
            self._exchange.reclaim(order.instance_id, timedelta(seconds=order.notice_seconds))
        except Refused as refusal:
            raise KeyError(refusal.detail) from refusal

    def change_price(self, change: PriceChange) -> None:
        """Of an auction: the reserve price."""
        found = [
            listing.offer_id
            for listing in self._exchange.listings()
            if (listing.region, listing.instance_type, listing.option.value)
            == (change.region, change.instance_type, change.option.value)
        ]
        if not found:
            raise KeyError(f"{change.instance_type} in {change.region}, {change.option.value}")
        for offer_id in found:
            self._exchange.change_price(offer_id, change.price)

    def prices(self) -> list[PriceChange]:
        return [
            PriceChange(
                region=offer.region,
                instance_type=offer.instance_type,
                option=MarketOption(offer.option.value),
                price=offer.price.amount,
            )
            for offer in self._exchange.offers(Resources(vcpus=0, memory_gib=0))
        ]

    def set_fault(self, fault: Fault) -> None:
        self._faults.set(fault)

    def bill(self, period: Interval) -> SandboxBill:
        bill = self._exchange.bill(self._tenant, period)
        content = as_csv(bill)
        return SandboxBill(
            format="focus",
            content_type="text/csv",
            content_base64=base64.b64encode(content).decode(),
            sha256=hashlib.sha256(content).hexdigest(),
            invoice_id=bill.invoice.invoice_id,
            issuer=bill.invoice.issuer,
            total=bill.invoice.total.amount,
            currency=bill.invoice.total.currency,
            period_start=period.start,
            period_end=period.end,
        )


def _instance(unit: Unit, now: datetime) -> SandboxInstance:
    return SandboxInstance(
        instance_id=unit.reservation_id,
        node=unit.node,
        region=unit.listing.region,
        zone=unit.listing.zone,
        instance_type=unit.listing.instance_type,
        spot=unit.listing.option is PurchaseOption.SPOT,
        state=InstanceState.TERMINATED if unit.ended_at(now) else InstanceState.RUNNING,
        user_data=unit.user_data,
        private_ip=None,
        launched_at=unit.started_at,
    )


def build_app(options: ServerOptions, *, token: str, clock: Clock) -> ASGIApp:
    """The whole server: the public API behind the fault gate, and the /_sandbox routes beside it."""
    faults = Faults(clock)
    rivals: Rivals = nobody
    if options.name == "agora":
        listings = agora_listings(options.regions)
        rivals = agora_rivals(listings, options.seed)
    else:
        listings = harbor_listings(options.regions)
    exchange = Exchange(
        listings,
        Terms(name=options.name, meter_speed=options.meter_speed),
        clock=clock,
        rivals=rivals,
        sold_out=lambda: faults.no_capacity,
        signer=sandbox_signer(options.name, options.seed),
    )
    app = create_app(exchange, tenants={token: options.account}, clock=clock)
    control = NetworkControl(exchange, faults, tenant=options.account, clock=clock)
    app.router.routes.extend(sandbox_routes(control))
    app.user_middleware.insert(0, Middleware(FaultGate, faults=faults, error=_fault_answer))
    return app


def sandbox_signer(name: str, seed: int) -> Signer:
    """The same key whenever it starts, so that a buyer that knows it goes on. It protects nothing on loopback."""
    secret = hashlib.sha256(f"sandbox/{name}/{seed}".encode()).digest()
    key = Ed25519PrivateKey.from_private_bytes(secret)
    return Signer(name, OKPKey.import_key(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())))


def _fault_answer(status: int, message: str) -> Response:
    code = ProblemCode.RATE_LIMITED if status == 429 else ProblemCode.UNAVAILABLE
    return problem(code, message, status=status)


def _rounded(price: Decimal) -> Decimal:
    return price.quantize(_PRICE_STEP, rounding=ROUND_HALF_EVEN)


def main(argv: Sequence[str] | None = None) -> None:
    named = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    named.add_argument("--name", choices=sorted(_DEFAULT_REGIONS), default="harbor")
    name = named.parse_known_args(argv)[0].name
    given = sys.argv[1:] if argv is None else argv
    options = parse_options(
        "providers.sandbox.networks",
        account="shardwright",
        regions=_DEFAULT_REGIONS[name],
        argv=[*given, "--name", name],
    )
    clock = SystemClock()
    serve(build_app(options, token=os.environ.get(TOKEN_VARIABLE) or DEFAULT_TOKEN, clock=clock), options)


if __name__ == "__main__":
    main()
