"""A typed client of the Open Capacity API. Blocking; safe to share between threads.

Raises only ``engine.errors``: AuthenticationFailed (401, 403), NotFound (404, a lapsed hold), InsufficientCapacity,
QuoteExpired, ProviderUnavailable (429, 5xx, time-outs, after bounded retries), ProviderAnswerInvalid (an answer that is
not what the API promises) and ProviderError (anything else that the network refuses).
"""

import json
import ssl
from datetime import datetime, timedelta
from random import Random
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar
from urllib.parse import quote as quoted

import httpx
from pydantic import BaseModel, ValidationError

from engine.clock import Clock
from engine.errors import (
    AuthenticationFailed,
    ConfigurationError,
    InsufficientCapacity,
    NotFound,
    ProviderAnswerInvalid,
    ProviderError,
    ProviderUnavailable,
    QuoteExpired,
)
from providers.network import wire
from providers.retry import call_with_retries, retry_after_seconds

_MAX_ANSWER_BYTES = 64 * 1024 * 1024
_MAX_WAIT_SECONDS = 5.0
_Parsed = TypeVar("_Parsed", bound=BaseModel)


class OfferFault(NamedTuple):
    """An offer that could not be read, and why; the others on the list are unharmed."""

    offer_id: str
    reason: str


class OfferPage(NamedTuple):
    offers: tuple[wire.WireOffer, ...]
    faults: tuple[OfferFault, ...]


class BillDocument(NamedTuple):
    """FOCUS rows as the network wrote them (CSV), and the invoice that they sum to."""

    invoice: wire.WireInvoice
    content: bytes
    content_type: str


class _Busy(Exception):
    """An answer or a failure that may pass; ``wait`` as the network asked."""

    def __init__(self, error: ProviderUnavailable, wait: float | None) -> None:
        self.error, self.wait = error, wait
        super().__init__(str(error))


class NetworkClient:
    """``timeout``: seconds for one attempt. ``ca_file``: a PEM file where the certificate is not a public one."""

    def __init__(
        self,
        base_url: str,
        token: str,
        *,
        timeout: float = 10.0,
        clock: Clock,
        ca_file: str | None = None,
        rng: Random | None = None,
        attempts: int = 4,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        if not base_url.startswith(("http://", "https://")):
            raise ConfigurationError(
                f"{base_url!r} is not the address of a network", why="it needs http:// or https://"
            )
        self._clock, self._rng, self._attempts, self._timeout = clock, rng or Random(), attempts, timeout  # noqa: S311
        self._http = httpx.Client(
            base_url=base_url.rstrip("/"),
            headers={"Authorization": f"Bearer {token}", "Accept": "application/json"},
            timeout=timeout,
            verify=ssl.create_default_context(cafile=ca_file) if ca_file else True,
            transport=transport,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    # --- market -------------------------------------------------------------------------------------------------

    def offers(
        self,
        *,
        vcpus: float = 0,
        memory_gib: float = 0,
        storage_iops: float = 0,
        network_mbps: float = 0,
        regions: tuple[str, ...] = (),
        options: tuple[str, ...] = (),
    ) -> OfferPage:
        """Offers whose one unit carries at least this much; an empty tuple means any."""
        params: list[tuple[str, str | int | float | bool | None]] = [
            ("min_vcpus", vcpus),
            ("min_memory_gib", memory_gib),
            ("min_storage_iops", storage_iops),
            ("min_network_mbps", network_mbps),
            *(("region", region) for region in regions),
            *(("option", option) for option in options),
        ]
        return _read_offers(self._send("GET", "/v1/offers", params=httpx.QueryParams(params)))

    def quote(
        self, offer_id: str, *, quantity: int, term: wire.WireTerm, limit_price: wire.WireMoney | None = None
    ) -> wire.WireQuote:
        """A firm price. With a ``limit_price`` below the ask, perhaps a counter-offer (see ``WireQuote.kind``)."""
        body = wire.QuoteRequest(offer_id=offer_id, quantity=quantity, term=term, limit_price=limit_price)
        return _read(self._send("POST", "/v1/quotes", body=body), wire.WireQuote)

    def auctions(self) -> tuple[wire.WireAuction, ...]:
        return _read(self._send("GET", "/v1/auctions"), wire.AuctionList).auctions

    def bid(
        self, auction_id: str, *, quantity: int, unit_price: wire.WireMoney, term: wire.WireTerm, key: str
    ) -> wire.WireBid:
        """Bid in the round that is open. Same key, same bid, as it stands now."""
        body = wire.BidRequest(quantity=quantity, unit_price=unit_price, term=term)
        return _read(self._send("POST", f"/v1/auctions/{_part(auction_id)}/bids", body=body, key=key), wire.WireBid)

    def bid_result(self, auction_id: str, bid_id: str) -> wire.WireBid:
        """The bid as it stands now: pending, won or lost."""
        return _read(self._send("GET", f"/v1/auctions/{_part(auction_id)}/bids/{_part(bid_id)}"), wire.WireBid)

    # --- holds and reservations -----------------------------------------------------------------------------------

    def hold(self, quote_id: str, *, quantity: int, key: str) -> wire.WireHold:
        """Keep units of a quote, free of charge until the hold lapses. Same key, same hold."""
        body = wire.HoldRequest(quote_id=quote_id, quantity=quantity)
        return _read(self._send("POST", "/v1/holds", body=body, key=key), wire.WireHold)

    def hold_state(self, hold_id: str) -> wire.WireHold:
        return _read(self._send("GET", f"/v1/holds/{_part(hold_id)}"), wire.WireHold)

    def confirm(
        self,
        hold_id: str,
        *,
        key: str,
        node: str,
        token: str,
        user_data: str,
        tags: dict[str, str] | None = None,
    ) -> wire.WireReservation:
        """Start one unit of the hold as ``node``. The same node and token is the same reservation."""
        body = wire.ConfirmRequest(node=node, token=token, user_data=user_data, tags=tags or {})
        answer = self._send("POST", f"/v1/holds/{_part(hold_id)}/confirm", body=body, key=key)
        return _read(answer, wire.WireReservation)

    def pay(self, hold_id: str, *, key: str) -> wire.WireHold:
        """Pay for the units that have no node yet: they no longer lapse. Idempotent."""
        return _read(self._send("POST", f"/v1/holds/{_part(hold_id)}/pay", key=key), wire.WireHold)

    def release(self, hold_id: str) -> None:
        """Give up the units that have no node. Already gone = success."""
        self._delete(f"/v1/holds/{_part(hold_id)}")

    def reservation(self, reservation_id: str) -> wire.WireReservation:
        return _read(self._send("GET", f"/v1/reservations/{_part(reservation_id)}"), wire.WireReservation)

    def reservations(self) -> tuple[wire.WireReservation, ...]:
        """The running ones."""
        return _read(self._send("GET", "/v1/reservations"), wire.ReservationList).reservations

    def delete_reservation(self, reservation_id: str) -> None:
        """End the unit. Already gone = success."""
        self._delete(f"/v1/reservations/{_part(reservation_id)}")

    def instances(self) -> tuple[wire.WireInstance, ...]:
        """The running ones."""
        return _read(self._send("GET", "/v1/instances"), wire.InstanceList).instances

    # --- what happened --------------------------------------------------------------------------------------------

    def events(self, since: datetime) -> tuple[wire.PriceEvent | wire.ReclaimEvent, ...]:
        """Price changes and reclaim notices from ``since`` on, in order."""
        params = httpx.QueryParams({"since": since.isoformat()})
        return _read(self._send("GET", "/v1/events", params=params), wire.EventList).events

    def bill(self, start: datetime, end: datetime) -> BillDocument:
        """FOCUS rows of [start, end) as CSV, with the invoice in the answer's headers."""
        params = httpx.QueryParams({"start": start.isoformat(), "end": end.isoformat()})
        answer = self._send("GET", "/v1/bills.csv", params=params)
        text = answer.headers.get("open-capacity-invoice", "")
        try:
            invoice = wire.WireInvoice.model_validate_json(text)
        except ValidationError as problem:
            raise _invalid(answer, problem) from None
        return BillDocument(invoice, answer.content, answer.headers.get("content-type", "").split(";")[0])

    # --- sending --------------------------------------------------------------------------------------------------

    def _delete(self, path: str) -> None:
        try:
            self._send("DELETE", path)
        except NotFound:
            return

    def _send(
        self,
        method: str,
        path: str,
        *,
        params: httpx.QueryParams | None = None,
        body: BaseModel | None = None,
        key: str | None = None,
    ) -> httpx.Response:
        headers = {"Idempotency-Key": key} if key else {}
        content = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            content = body.model_dump_json().encode()
        request = self._http.build_request(method, path, params=params, content=content, headers=headers)
        # Every call is safe to repeat: reads, deletes, quotes (no promise), and purchases (they carry a key).
        try:
            return call_with_retries(
                lambda: self._attempt(request),
                attempts=self._attempts,
                clock=self._clock,
                rng=self._rng,
                retry_on=(_Busy,),
                cap_seconds=_MAX_WAIT_SECONDS,
                budget_seconds=2 * self._timeout,
                retry_after=lambda failure: failure.wait if isinstance(failure, _Busy) else None,
            )
        except _Busy as busy:
            raise busy.error from None

    def _attempt(self, request: httpx.Request) -> httpx.Response:
        where = f"{request.method} {request.url.path}"
        try:
            with self._http.stream(
                request.method, request.url, content=request.content, headers=request.headers
            ) as answer:
                content = self._bounded_content(answer)
        except httpx.TimeoutException:
            raise _Busy(ProviderUnavailable(f"{where}: no answer in {self._timeout:g} s"), None) from None
        except httpx.DecodingError as problem:
            raise ProviderAnswerInvalid(f"{where}: an answer that cannot be decoded", why=str(problem)) from None
        except httpx.TransportError as problem:
            reason = f"{request.url.host}:{request.url.port or ''} {type(problem).__name__}: {problem}"
            raise _Busy(ProviderUnavailable(f"{where}: cannot be reached", why=reason), None) from None
        whole = httpx.Response(answer.status_code, headers=_plain_headers(answer), content=content, request=request)
        if whole.is_success:
            return whole
        if whole.status_code == httpx.codes.TOO_MANY_REQUESTS or whole.status_code >= 500:
            wait = retry_after_seconds(whole.headers, self._clock.now())
            raise _Busy(ProviderUnavailable(f"{where}: answered {whole.status_code}", why=_detail(whole)), wait)
        raise _error(where, whole)

    def _bounded_content(self, answer: httpx.Response) -> bytes:
        """The body, unless it is larger than any honest answer or drips in for longer than the time-out."""
        deadline = self._clock.now() + timedelta(seconds=self._timeout)
        content = bytearray()
        for chunk in answer.iter_bytes():
            content += chunk
            if len(content) > _MAX_ANSWER_BYTES:
                raise ProviderAnswerInvalid(f"{answer.url.path}: the answer is larger than {_MAX_ANSWER_BYTES} bytes")
            if self._clock.now() > deadline:
                raise httpx.ReadTimeout("the answer drips in", request=answer.request)
        return bytes(content)


def _part(identifier: str) -> str:
    return quoted(identifier, safe="")


def _plain_headers(answer: httpx.Response) -> httpx.Headers:
    """The body is decoded by now: what described its transfer no longer applies."""
    return httpx.Headers(
        [
            (name, value)
            for name, value in answer.headers.multi_items()
            if name.lower() not in {"content-encoding", "content-length", "transfer-encoding"}
        ]
    )


def _read(answer: httpx.Response, model: type[_Parsed]) -> _Parsed:
    try:
        return model.model_validate_json(answer.content)
    except ValidationError as problem:
        raise _invalid(answer, problem) from None


def _read_offers(answer: httpx.Response) -> OfferPage:
    """Offer by offer, so that a bad one does not spoil the list."""
    try:
        items: Any = json.loads(answer.content)["offers"]
        if not isinstance(items, list):
            raise TypeError
    except (ValueError, TypeError, KeyError):
        raise ProviderAnswerInvalid(f"{answer.request.url.path}: not a list of offers", why=_kind_of(answer)) from None
    offers: list[wire.WireOffer] = []
    faults: list[OfferFault] = []
    for position, item in enumerate(items):
        try:
            offers.append(wire.WireOffer.model_validate(item))
        except ValidationError as problem:
            faults.append(OfferFault(_offer_name(item, position), _first_fault(problem)))
    return OfferPage(tuple(offers), tuple(faults))


def _offer_name(item: object, position: int) -> str:
    name = item.get("offer_id") if isinstance(item, dict) else None
    return name[:200] if isinstance(name, str) and name else f"#{position}"


def _first_fault(problem: ValidationError) -> str:
    """Where and what, without the value: an answer may hold anything."""
    first = problem.errors(include_input=False, include_url=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "the answer"
    return f"{where}: {first['msg'].removeprefix('Value error, ').lower()}"


def _kind_of(answer: httpx.Response) -> str:
    return f"{answer.status_code} {answer.headers.get('content-type', 'no content type')}"


def _invalid(answer: httpx.Response, problem: ValidationError) -> ProviderAnswerInvalid:
    return ProviderAnswerInvalid(
        f"{answer.request.method} {answer.request.url.path}: not what the Open Capacity API promises",
        why=f"{_first_fault(problem)} ({_kind_of(answer)})",
    )


def _problem(answer: httpx.Response) -> wire.Problem | None:
    try:
        return wire.Problem.model_validate_json(answer.content)
    except ValidationError:
        return None


def _detail(answer: httpx.Response) -> str:
    problem = _problem(answer)
    return problem.detail or problem.title if problem else _kind_of(answer)


_BY_CODE: dict[wire.ProblemCode, type[ProviderError]] = {
    wire.ProblemCode.INSUFFICIENT_CAPACITY: InsufficientCapacity,
    wire.ProblemCode.QUOTE_EXPIRED: QuoteExpired,
    wire.ProblemCode.HOLD_LAPSED: NotFound,
    wire.ProblemCode.NOT_FOUND: NotFound,
    wire.ProblemCode.UNAVAILABLE: ProviderUnavailable,
}


def _error(where: str, answer: httpx.Response) -> Exception:
    if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        return AuthenticationFailed(
            f"{where}: the network refuses the token",
            why=_detail(answer),
            next_step="check credentials.token of this provider in shardwright.toml",
        )
    problem = _problem(answer)
    if problem is not None:
        kind = _BY_CODE.get(problem.code, ProviderError)
        return kind(f"{where}: {problem.title}", why=problem.detail)
    return ProviderAnswerInvalid(f"{where}: refused without a problem document", why=_kind_of(answer))
