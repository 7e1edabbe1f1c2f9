"""One tenant of a network under test: sends plain HTTP, waits as it is told, and cleans up after every case."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from types import TracebackType
from typing import Any, Self, TypeVar
from uuid import uuid4

import httpx
from pydantic import BaseModel, ValidationError

from engine.clock import Clock
from providers.network import wire
from providers.network.conformance.base import NotOffered, Unmet, require
from providers.retry import retry_after_seconds

_LONGEST_WAIT = 120.0
_PATIENCE = timedelta(seconds=60)
_Parsed = TypeVar("_Parsed", bound=BaseModel)
Json = dict[str, Any]


class Probe:
    """``patience``: seconds that one case may wait for something to expire."""

    def __init__(self, http: httpx.Client, *, token: str, clock: Clock, patience: float = 30.0) -> None:
        self._http, self._token, self.clock, self.patience = http, token, clock, patience
        self._cleanups: list[Callable[[], object]] = []
        self._won: tuple[wire.WireQuote, int] | None = None
        """The last quote that was won, and how many of its units no node was started on."""
        self._terms: wire.WireTerms | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.clean_up()

    # --- HTTP -------------------------------------------------------------------------------------------------------

    def send(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        *,
        key: str | None = None,
        token: str | None = "",
        headers: dict[str, str] | None = None,
        patient: bool = True,
        params: Json | None = None,
    ) -> httpx.Response:
        """``token`` "" is the tenant's own, None is none at all; ``patient``: come back after a 429 as it says."""
        given = {"Accept": "application/json", **(headers or {})}
        if token is not None:
            given["Authorization"] = f"Bearer {token or self._token}"
        if key is not None:
            given["Idempotency-Key"] = key
        for _ in range(20):
            try:
                answer = self._http.request(method, path, json=body, headers=given, params=params)
            except httpx.TransportError as problem:
                raise Unmet(f"{method} {path}: {type(problem).__name__}") from None
            if answer.status_code != httpx.codes.TOO_MANY_REQUESTS or not patient:
                return answer
            self.clock.sleep(min(_LONGEST_WAIT, retry_after_seconds(answer.headers, self.clock.now()) or 1.0))
        raise Unmet(f"{method} {path}: 429 again and again, though Retry-After was kept")

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.send("GET", path, **options)

    def post(self, path: str, body: Json | None = None, *, key: str | None = None, **options: Any) -> httpx.Response:
        return self.send("POST", path, body, key=key, **options)

    def delete(self, path: str) -> httpx.Response:
        return self.send("DELETE", path)

    @contextmanager
    def streamed(self, path: str, last_seen: str) -> Iterator[httpx.Response]:
        headers = {
            "Authorization": f"Bearer {self._token}",
            "Accept": "text/event-stream",
            "Last-Event-ID": last_seen,
        }
        with self._http.stream("GET", path, headers=headers) as answer:
            yield answer

    # --- reading answers --------------------------------------------------------------------------------------------

    def read(self, answer: httpx.Response, model: type[_Parsed], *statuses: int) -> _Parsed:
        """Raises Unmet on another status (200 or 201 where none is given) or another shape."""
        require(answer.status_code in (statuses or (200, 201)), told(answer))
        try:
            return model.model_validate_json(answer.content)
        except ValidationError as problem:
            first = problem.errors(include_input=False, include_url=False, include_context=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise Unmet(f"{model.__name__}: {where}: {first['msg']}") from None

    def problem(self, answer: httpx.Response, status: int | tuple[int, ...], *codes: wire.ProblemCode) -> str:
        """What was seen, if it is a problem document of one of these statuses and codes. Raises Unmet."""
        expected = (status,) if isinstance(status, int) else status
        require(answer.status_code in expected, told(answer))
        kind = answer.headers.get("content-type", "no content type").split(";")[0]
        require(kind == "application/problem+json", f"{answer.status_code} as {kind}")
        found = self.read(answer, wire.Problem, answer.status_code)
        require(
            found.status == answer.status_code, f"status {found.status} in the document, {answer.status_code} outside"
        )
        require(not codes or found.code in codes, f"{answer.status_code} with code {found.code.value}")
        return f"{answer.status_code} {found.code.value}"

    # --- the market -------------------------------------------------------------------------------------------------

    @property
    def terms(self) -> wire.WireTerms:
        if self._terms is None:
            self._terms = self.read(self.get("/v1/terms"), wire.WireTerms)
        return self._terms

    def offers(self) -> tuple[wire.WireOffer, ...]:
        return self.read(self.get("/v1/offers"), wire.OfferList).offers

    def posted(self, units: int = 1) -> wire.WireOffer:
        """The cheapest offer at a posted price with that many units free. Raises NotOffered."""
        found = [one for one in self.offers() if one.auction_id is None and _has(one, units)]
        if not found:
            raise NotOffered(f"nothing at a posted price with {units} free")
        return min(found, key=lambda one: one.price.amount)

    def auction(self, *rules: wire.WireAuctionRule, units: int = 1) -> wire.WireAuction:
        """The open auction with most units free. Raises NotOffered."""
        listed = self.read(self.get("/v1/auctions"), wire.AuctionList).auctions
        found = [one for one in listed if (not rules or one.rule in rules) and one.available >= units]
        if not found:
            raise NotOffered(f"no auction by {' or '.join(rules) or 'any rule'} with {units} free")
        return max(found, key=lambda one: one.available)

    def term(self) -> Json:
        now = self.clock.now()
        return {"start": now.isoformat(), "end": (now + timedelta(days=1)).isoformat()}

    def money(self, amount: Decimal, currency: str | None = None) -> Json:
        return {"amount": f"{amount:f}", "currency": currency or self.terms.currency}

    def other_currency(self) -> str:
        return "XTS" if self.terms.currency != "XTS" else "XXX"

    def quote(self, offer: wire.WireOffer, units: int = 1, **fields: Any) -> wire.WireQuote:
        body = {"offer_id": offer.offer_id, "quantity": units, "term": self.term(), **fields}
        return self.read(self.post("/v1/quotes", body), wire.WireQuote)

    def bid(self, auction: wire.WireAuction, price: Decimal, units: int = 1, **fields: Any) -> wire.WireBid:
        body = {"quantity": units, "unit_price": self.money(price), "term": self.term(), **fields}
        return self.read(self.post(f"/v1/auctions/{auction.auction_id}/bids", body, key=new_key()), wire.WireBid)

    def decided(self, bid: wire.WireBid) -> wire.WireBid:
        """Waits for its round to close. Raises Unmet when it does not."""
        give_up_at = max(bid.decides_at, self.clock.now()) + _PATIENCE
        while bid.status is wire.BidStatus.PENDING:
            require(self.clock.now() < give_up_at, f"bid {bid.bid_id} is pending after {bid.decides_at}")
            self.clock.sleep(min(5.0, max(0.1, (bid.decides_at - self.clock.now()).total_seconds())))
            answer = self.get(f"/v1/auctions/{bid.auction_id}/bids/{bid.bid_id}")
            bid = self.read(answer, wire.WireBid)
        return bid

    def won(self, units: int = 1, *, anew: bool = False) -> wire.WireQuote:
        """A quote won in any auction; one that still has units is used again. Raises NotOffered."""
        if self._won is not None and not anew:
            quote, left = self._won
            if left >= units and quote.expires_at > self.clock.now() + _PATIENCE:
                return quote
        auction = self.auction(units=units)
        wanted = min(auction.available, max(units, 3))
        decided = self.decided(self.bid(auction, max(Decimal(1), auction.reserve_price.amount * 20), wanted))
        if decided.quote is None:
            raise NotOffered(f"lost every unit of {auction.auction_id}: {decided.reason}")
        if decided.quote.quantity < units:
            raise NotOffered(f"won only {decided.quote.quantity} of {wanted} in {auction.auction_id}")
        self._won = (decided.quote, decided.quote.quantity)
        return decided.quote

    def firm(self, units: int = 1, *, anew: bool = False) -> wire.WireQuote:
        """A quote by whatever way this network sells; ``anew``: not one whose units are kept already."""
        try:
            return self.quote(self.posted(units), units)
        except NotOffered:
            return self.won(units, anew=anew)

    def hold(self, units: int = 1, **fields: Any) -> wire.WireHold:
        """Held by whatever way this network sells, and released after the case."""
        body = {"quote_id": self.firm(units).quote_id, "quantity": units, **fields}
        return self.keep(self.read(self.post("/v1/holds", body, key=new_key()), wire.WireHold))

    def keep(self, hold: wire.WireHold) -> wire.WireHold:
        """To be released after the case."""
        self._cleanups.append(lambda: self.delete(f"/v1/holds/{hold.hold_id}"))
        return hold

    def start(self, hold: wire.WireHold, **fields: Any) -> wire.WireReservation:
        """One unit of it as a node, ended after the case."""
        body = {"node": f"check-{uuid4().hex[:8]}", "token": f"check:{uuid4().hex[:8]}", "user_data": "", **fields}
        answer = self.post(f"/v1/holds/{hold.hold_id}/confirm", body, key=new_key())
        unit = self.read(answer, wire.WireReservation)
        if self._won is not None and self._won[0].quote_id == hold.quote_id:
            self._won = (self._won[0], self._won[1] - 1)
        self._cleanups.append(lambda: self.delete(f"/v1/reservations/{unit.reservation_id}"))
        return unit

    def free(self, offer_id: str) -> int | None:
        return next((one.available for one in self.offers() if one.offer_id == offer_id), None)

    def wait(self, seconds: float) -> None:
        """Raises NotOffered when that is longer than the suite may wait."""
        if seconds > self.patience:
            raise NotOffered(f"it takes {seconds:.0f} s, --patience is {self.patience:g} s")
        self.clock.sleep(max(0.0, seconds))

    def clean_up(self) -> None:
        """What a case left behind; a network that cannot even do that fails other cases."""
        while self._cleanups:
            try:
                self._cleanups.pop()()
            except Unmet:
                continue


def _has(offer: wire.WireOffer, units: int) -> bool:
    return offer.available is None or offer.available >= units


def new_key() -> str:
    return uuid4().hex


def told(answer: httpx.Response) -> str:
    """Status and problem code, without the body: an answer may hold anything."""
    try:
        found = wire.Problem.model_validate_json(answer.content)
        return f"{answer.status_code} {found.code.value}"
    except ValidationError:
        return f"{answer.status_code} {answer.headers.get('content-type', 'without a content type')}"
