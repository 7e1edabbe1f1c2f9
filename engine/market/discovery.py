"""Ask every provider what it sells, side by side; take what can be used, name what cannot.

A provider that is down, slow or talks rubbish costs its own offers and nothing else. An offer that cannot be trusted
(price, size, age, name) is refused with a reason that the plan and ``shardwright offers`` show.
"""

import threading
from collections.abc import Sequence
from concurrent.futures import Future, wait
from datetime import datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Annotated

from pydantic import Field

from engine.clock import Clock
from engine.collection import collection_paused
from engine.errors import ShardwrightError
from engine.model.market import Offer, OfferQuery, PurchaseOption
from engine.model.plan import OfferRejection
from engine.model.value import Utc, Value
from providers.base import OfferBook, Provider, SupportsOfferBook

_CLOCK_SKEW = timedelta(minutes=5)


class MarketLimits(Value):
    """What is believable. Prices are compared in one currency."""

    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] = "USD"
    max_price_per_vcpu_hour: Decimal = Decimal(25)
    min_price_per_vcpu_hour: Decimal = Decimal("0.00001")
    max_vcpus: float = 4096
    max_memory_gib: float = 65536
    max_age_moving: timedelta = timedelta(days=7)
    """Of a spot or auction price. Clouds state a spot price when it changes, which may be days ago."""
    max_age_posted: timedelta = timedelta(days=400)
    """Of a list price or a commitment."""
    max_delivery: timedelta = timedelta(minutes=10)
    """Plans count on what is bought at once: a unit that may come later than a machine takes to start is none of it."""


class ProviderFailure(Value):
    """A provider whose offers are missing from the view."""

    provider: str
    kind: str
    """The error's name, e.g. ``ProviderUnavailable``."""
    reason: str


class MarketView(Value):
    """The market at one moment, in the providers' order."""

    offers: tuple[Offer, ...]
    rejections: tuple[OfferRejection, ...]
    failures: tuple[ProviderFailure, ...]
    made_at: Utc


@collection_paused()
def discover(
    providers: Sequence[Provider],
    need: OfferQuery,
    *,
    clock: Clock,
    timeout_seconds: float,
    limits: MarketLimits | None = None,
) -> MarketView:
    """Blocks for ``timeout_seconds`` of real time at most; what has not answered by then is a failure."""
    believable = limits or MarketLimits()
    answers = [_ask(provider, need) for provider in providers]
    wait(answers, timeout=timeout_seconds)
    now = clock.now()
    offers: list[Offer] = []
    rejections: list[OfferRejection] = []
    failures: list[ProviderFailure] = []
    seen: set[str] = set()
    for provider, answer in zip(providers, answers, strict=True):
        failure = _failure(provider.name, answer, timeout_seconds)
        if failure is not None:
            failures.append(failure)
            continue
        book = answer.result()
        rejections += book.rejections
        for offer in book.offers:
            reason = _wrong_origin(offer, provider.name, seen) or fault_of(offer, believable, now)
            seen.add(offer.id)
            if reason:
                rejections.append(OfferRejection(offer=offer.id, provider=provider.name, reason=reason))
            else:
                offers.append(offer)
    return MarketView(offers=tuple(offers), rejections=tuple(rejections), failures=tuple(failures), made_at=now)


def fault_of(offer: Offer, limits: MarketLimits, now: datetime) -> str | None:
    """Why an offer is refused, None where it is fine. Pure."""
    return _size(offer, limits) or _price(offer, limits) or _time(offer, limits, now) or _delivery(offer, limits, now)


def _ask(provider: Provider, need: OfferQuery) -> "Future[OfferBook]":
    """In a daemon thread, so that a provider that never answers keeps no process alive."""
    answer: Future[OfferBook] = Future()

    def run() -> None:
        try:
            answer.set_result(_book(provider, need))
        except Exception as error:  # whatever one adapter does, the others' offers count
            answer.set_exception(error)

    threading.Thread(target=run, name=f"discover-{provider.name}", daemon=True).start()
    return answer


def _book(provider: Provider, need: OfferQuery) -> OfferBook:
    if isinstance(provider, SupportsOfferBook):
        return provider.offer_book(need)
    return OfferBook(offers=tuple(provider.offers(need)))


def _failure(name: str, answer: "Future[OfferBook]", timeout_seconds: float) -> ProviderFailure | None:
    if not answer.done():
        return ProviderFailure(provider=name, kind="TimedOut", reason=f"no answer in {timeout_seconds:g} s")
    error = answer.exception()
    if error is None:
        return None
    kind = type(error).__name__
    reason = str(error) if isinstance(error, ShardwrightError) else f"{kind}: {error}"
    return ProviderFailure(provider=name, kind=kind, reason=reason)


def _wrong_origin(offer: Offer, provider: str, seen: set[str]) -> str | None:
    if offer.provider != provider:
        return f"posted in the name of {offer.provider}"
    if offer.id in seen:
        return "duplicate id: another offer has it"
    return None


def _size(offer: Offer, limits: MarketLimits) -> str | None:
    size = offer.resources
    if size.vcpus <= 0 or size.memory_gib <= 0:
        return f"zero capacity: {size.vcpus:g} vCPU, {size.memory_gib:g} GiB"
    if size.vcpus > limits.max_vcpus or size.memory_gib > limits.max_memory_gib:
        return f"absurd size: {size.vcpus:g} vCPU, {size.memory_gib:g} GiB"
    if offer.available == 0:
        return "zero capacity: sold out"
    return None


def _price(offer: Offer, limits: MarketLimits) -> str | None:
    price = offer.price
    if price.currency != limits.currency:
        return f"currency {price.currency} is not known here: prices are compared in {limits.currency}"
    if price.amount < 0:
        return f"negative price: {price}"
    if offer.option is PurchaseOption.AUCTION and price.amount == 0:
        return None  # no reserve price
    if price.amount == 0:
        return "zero price"
    per_vcpu = price.amount / _exact(offer.resources.vcpus)
    if not limits.min_price_per_vcpu_hour <= per_vcpu <= limits.max_price_per_vcpu_hour:
        shown = per_vcpu.quantize(Decimal("1e-8")).normalize()
        return f"absurd price: {shown:f} {price.currency} per vCPU-hour"
    return None


@lru_cache(maxsize=1024)
def _exact(vcpus: float) -> Decimal:
    """As written; a market has few distinct sizes."""
    return Decimal(repr(vcpus))


def _time(offer: Offer, limits: MarketLimits, now: datetime) -> str | None:
    if offer.expires_at is not None and offer.expires_at <= now:
        return f"expired at {offer.expires_at:%Y-%m-%d %H:%M:%S}Z"
    if offer.price_at > now + _CLOCK_SKEW:
        return f"clock skew: its price is stated for {offer.price_at:%Y-%m-%d %H:%M:%S}Z"
    posted = offer.option in (PurchaseOption.ON_DEMAND, PurchaseOption.COMMITMENT)
    oldest = limits.max_age_posted if posted else limits.max_age_moving
    if now - offer.price_at > oldest:
        return f"stale price: stated {(now - offer.price_at).days} days ago"
    return None


def _delivery(offer: Offer, limits: MarketLimits, now: datetime) -> str | None:
    window = offer.delivery
    if window is None or window.latest <= now + limits.max_delivery:
        return None
    minutes = limits.max_delivery.total_seconds() / 60
    return (
        f"delivered later: between {window.earliest:%Y-%m-%d %H:%M}Z and {window.latest:%Y-%m-%d %H:%M}Z, "
        f"not within {minutes:g} minutes from now"
    )
