"""A typed client of the Open Capacity API. Blocking; safe to share between threads.

Raises only ``engine.errors``: AuthenticationFailed (401, 403), NotFound (404, a lapsed hold), InsufficientCapacity,
QuoteExpired, ProviderUnavailable (429, 5xx, time-outs, after bounded retries), ProviderAnswerInvalid (an answer that is
not what the API promises) and ProviderError (anything else that the network refuses).
"""

import ssl
from collections.abc import Generator
from datetime import datetime, timedelta
from random import Random
from types import TracebackType
from typing import NamedTuple, NoReturn, Self
from urllib.parse import quote as quoted

import httpx
from pydantic import BaseModel, ValidationError

from engine.clock import Clock
from engine.errors import (
    NotFound,
    ProviderAnswerInvalid,
    ProviderUnavailable,
)
from providers.network import wire
from providers.network.answers import OfferPage, detail, error_of, invalid, read, read_offers
from providers.network.event_source import read_events
from providers.network.wire_records import AnyEvent, EventList, WireInvoice
from providers.network.wire_talks import (
    NegotiationRequest,
    Proposal,
    ReverseRequest,
    WireNegotiation,
    WireReverseAuction,
)
from providers.rest import check_endpoint
from providers.retry import call_with_retries, retry_after_seconds

_MAX_ANSWER_BYTES = 64 * 1024 * 1024
_MAX_WAIT_SECONDS = 5.0
_SILENCE_SECONDS = 45.0
"""A stream of events says at least that it is alive within this time."""


class BillDocument(NamedTuple):
    """FOCUS rows as the network wrote them (CSV), and the invoice that they sum to."""

    invoice: WireInvoice
    content: bytes
    content_type: str


class _Busy(Exception):
    """An answer or a failure that may pass; ``wait`` as the network asked."""

    def __init__(self, error: ProviderUnavailable, wait: float | None) -> None:
        self.error, self.wait = error, wait
        super().__init__(str(error))


class NetworkClient:
    """``timeout``: seconds for one attempt. ``ca_file``: a PEM file where the certificate is not a public one.

    Raises ConfigurationError for a ``base_url`` that is neither https nor this very machine's.
    """

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
        check_endpoint("the address of a network", base_url)  # the token, and what nodes join with, travel there
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
        return read_offers(self._send("GET", "/v1/offers", params=httpx.QueryParams(params)))

    def terms(self) -> wire.WireTerms:
        return read(self._send("GET", "/v1/terms"), wire.WireTerms)

    def keys(self) -> tuple[wire.VerificationKey, ...]:
        """What its signatures are checked with."""
        return read(self._send("GET", "/v1/keys"), wire.KeyList).keys

    def shard_types(self) -> tuple[wire.WireShardType, ...]:
        return read(self._send("GET", "/v1/shard-types"), wire.ShardTypeList).shard_types

    def quote(
        self,
        offer_id: str,
        *,
        quantity: int,
        term: wire.WireTerm,
        nonce: str | None = None,
        lasts_seconds: float | None = None,
    ) -> wire.WireQuote:
        """The posted price, firm. ``nonce`` comes back signed; ``lasts_seconds``: no longer than that."""
        body = wire.QuoteRequest(
            offer_id=offer_id, quantity=quantity, term=term, nonce=nonce, lasts_seconds=lasts_seconds
        )
        return read(self._send("POST", "/v1/quotes", body=body), wire.WireQuote)

    def auctions(self) -> tuple[wire.WireAuction, ...]:
        return read(self._send("GET", "/v1/auctions"), wire.AuctionList).auctions

    def bid(
        self,
        auction_id: str,
        *,
        quantity: int,
        unit_price: wire.WireMoney,
        term: wire.WireTerm,
        key: str,
        raises: str | None = None,
    ) -> wire.WireBid:
        """Bid in the round that is open. Same key, same bid, as it stands now. ``raises``: an earlier bid of ours."""
        body = wire.BidRequest(quantity=quantity, unit_price=unit_price, term=term, raises=raises)
        return read(self._send("POST", f"/v1/auctions/{_part(auction_id)}/bids", body=body, key=key), wire.WireBid)

    def bid_result(self, auction_id: str, bid_id: str) -> wire.WireBid:
        """The bid as it stands now: pending, won or lost."""
        return read(self._send("GET", f"/v1/auctions/{_part(auction_id)}/bids/{_part(bid_id)}"), wire.WireBid)

    # --- negotiations and reverse auctions ------------------------------------------------------------------------

    def negotiate(self, offer_id: str, *, quantity: int, term: wire.WireTerm, key: str) -> WireNegotiation:
        """Open a conversation about the price. Same key, same conversation, as it stands now."""
        body = NegotiationRequest(offer_id=offer_id, quantity=quantity, term=term)
        return read(self._send("POST", "/v1/negotiations", body=body, key=key), WireNegotiation)

    def propose(self, negotiation_id: str, unit_price: wire.WireMoney, *, key: str) -> WireNegotiation:
        path = f"/v1/negotiations/{_part(negotiation_id)}/proposals"
        return read(self._send("POST", path, body=Proposal(unit_price=unit_price), key=key), WireNegotiation)

    def negotiation(self, negotiation_id: str) -> WireNegotiation:
        return read(self._send("GET", f"/v1/negotiations/{_part(negotiation_id)}"), WireNegotiation)

    def end_negotiation(self, negotiation_id: str) -> None:
        """Walk away. Already gone = success."""
        self._delete(f"/v1/negotiations/{_part(negotiation_id)}")

    def open_reverse_auction(
        self,
        at_least: wire.WireResources,
        *,
        quantity: int,
        term: wire.WireTerm,
        ceiling: wire.WireMoney,
        key: str,
    ) -> WireReverseAuction:
        """Have sellers undercut each other. Same key, same auction, as it stands now."""
        body = ReverseRequest(at_least=at_least, quantity=quantity, term=term, ceiling=ceiling)
        return read(self._send("POST", "/v1/reverse-auctions", body=body, key=key), WireReverseAuction)

    def reverse_auction(self, auction_id: str) -> WireReverseAuction:
        return read(self._send("GET", f"/v1/reverse-auctions/{_part(auction_id)}"), WireReverseAuction)

    # --- holds and reservations -----------------------------------------------------------------------------------

    def hold(self, quote_id: str, *, quantity: int, key: str, lasts_seconds: float | None = None) -> wire.WireHold:
        """Keep units of a quote, free of charge until the hold lapses. Same key, same hold."""
        body = wire.HoldRequest(quote_id=quote_id, quantity=quantity, lasts_seconds=lasts_seconds)
        return read(self._send("POST", "/v1/holds", body=body, key=key), wire.WireHold)

    def hold_state(self, hold_id: str) -> wire.WireHold:
        return read(self._send("GET", f"/v1/holds/{_part(hold_id)}"), wire.WireHold)

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
        return read(answer, wire.WireReservation)

    def pay(self, hold_id: str, *, key: str) -> wire.WireHold:
        """Pay for the units that have no node yet: they no longer lapse. Idempotent."""
        return read(self._send("POST", f"/v1/holds/{_part(hold_id)}/pay", key=key), wire.WireHold)

    def resize_hold(self, hold_id: str, *, quantity: int, key: str) -> wire.WireHold:
        """To that many units; more of them only while the quote lasts."""
        body = wire.ResizeHoldRequest(quantity=quantity)
        return read(self._send("POST", f"/v1/holds/{_part(hold_id)}/resize", body=body, key=key), wire.WireHold)

    def release(self, hold_id: str) -> None:
        """Give up the units that have no node. Already gone = success."""
        self._delete(f"/v1/holds/{_part(hold_id)}")

    def reservation(self, reservation_id: str) -> wire.WireReservation:
        return read(self._send("GET", f"/v1/reservations/{_part(reservation_id)}"), wire.WireReservation)

    def reservations(self) -> tuple[wire.WireReservation, ...]:
        """The running ones."""
        return read(self._send("GET", "/v1/reservations"), wire.ReservationList).reservations

    def resize(
        self, reservation_id: str, *, offer_id: str, limit_price: wire.WireMoney, key: str
    ) -> wire.WireReservation:
        """Turn a running unit into one of another offer of its zone, at no more than ``limit_price``."""
        body = wire.ResizeRequest(offer_id=offer_id, limit_price=limit_price)
        answer = self._send("POST", f"/v1/reservations/{_part(reservation_id)}/resize", body=body, key=key)
        return read(answer, wire.WireReservation)

    def delete_reservation(self, reservation_id: str) -> None:
        """End the unit. Already gone = success."""
        self._delete(f"/v1/reservations/{_part(reservation_id)}")

    def instances(self) -> tuple[wire.WireInstance, ...]:
        """The running ones."""
        return read(self._send("GET", "/v1/instances"), wire.InstanceList).instances

    # --- what happened --------------------------------------------------------------------------------------------

    def events(self, since: datetime) -> tuple[AnyEvent, ...]:
        """Changes of prices and capacity and reclaim notices from ``since`` on, in order."""
        params = httpx.QueryParams({"since": since.isoformat()})
        return read(self._send("GET", "/v1/events", params=params), EventList).events

    def stream(self, last_seen: int = 0, *, wait_seconds: float = 0.0) -> Generator[AnyEvent, None, None]:
        """Events behind ``last_seen`` and, for ``wait_seconds``, those that happen: one connection, no retries.

        Call again with the last ``event_id`` to go on without losing or repeating any. A ``GapEvent`` says that some
        are gone for good. Raises ProviderUnavailable when the connection breaks or nothing is heard for 45 seconds.
        """
        request = self._http.build_request(
            "GET",
            "/v1/events/stream",
            params={"wait_seconds": wait_seconds},
            headers={"Last-Event-ID": str(last_seen), "Accept": "text/event-stream", "Accept-Encoding": "identity"},
            timeout=httpx.Timeout(self._timeout, read=max(self._timeout, _SILENCE_SECONDS)),
        )
        try:
            answer = self._http.send(request, stream=True)
            try:
                if not answer.is_success:
                    self._refuse(f"GET {request.url.path}", self._whole(answer))
                yield from read_events(answer, now=self._clock.now, silence=timedelta(seconds=_SILENCE_SECONDS))
            finally:
                answer.close()
        except _Busy as busy:
            raise busy.error from None
        except httpx.TransportError as problem:
            raise ProviderUnavailable(
                f"GET {request.url.path}: the stream of events broke", why=f"{type(problem).__name__}: {problem}"
            ) from None

    def _refuse(self, where: str, answer: httpx.Response) -> NoReturn:
        """Raises _Busy for what may pass, else what it means."""
        if answer.status_code == httpx.codes.TOO_MANY_REQUESTS or answer.status_code >= 500:
            wait = retry_after_seconds(answer.headers, self._clock.now())
            raise _Busy(ProviderUnavailable(f"{where}: answered {answer.status_code}", why=detail(answer)), wait)
        raise error_of(where, answer)

    def bill(self, start: datetime, end: datetime) -> BillDocument:
        """FOCUS rows of [start, end) as CSV, with the invoice in the answer's headers."""
        params = httpx.QueryParams({"start": start.isoformat(), "end": end.isoformat()})
        answer = self._send("GET", "/v1/bills.csv", params=params)
        text = answer.headers.get("open-capacity-invoice", "")
        try:
            invoice = WireInvoice.model_validate_json(text)
        except ValidationError as problem:
            raise invalid(answer, problem) from None
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
                whole = self._whole(answer)
        except httpx.TimeoutException:
            raise _Busy(ProviderUnavailable(f"{where}: no answer in {self._timeout:g} s"), None) from None
        except httpx.DecodingError as problem:
            raise ProviderAnswerInvalid(f"{where}: an answer that cannot be decoded", why=str(problem)) from None
        except httpx.TransportError as problem:
            reason = f"{request.url.host}:{request.url.port or ''} {type(problem).__name__}: {problem}"
            raise _Busy(ProviderUnavailable(f"{where}: cannot be reached", why=reason), None) from None
        if not whole.is_success:
            self._refuse(where, whole)
        return whole

    def _whole(self, answer: httpx.Response) -> httpx.Response:
        """With its body, unless that is larger than any honest answer or drips in for longer than the time-out."""
        deadline = self._clock.now() + timedelta(seconds=self._timeout)
        content = bytearray()
        for chunk in answer.iter_bytes():
            content += chunk
            if len(content) > _MAX_ANSWER_BYTES:
                raise ProviderAnswerInvalid(f"{answer.url.path}: the answer is larger than {_MAX_ANSWER_BYTES} bytes")
            if self._clock.now() > deadline:
                raise httpx.ReadTimeout("the answer drips in", request=answer.request)
        headers = _plain_headers(answer)
        return httpx.Response(answer.status_code, headers=headers, content=bytes(content), request=answer.request)


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
