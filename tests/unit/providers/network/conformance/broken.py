"""Networks that break one rule each."""

import json
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest

from providers.network import wire
from providers.network.bidding import Bidding
from providers.network.book import Book
from providers.network.events import EventLog
from providers.network.exchange import Exchange
from providers.network.haggling import Talk
from providers.network.records import Hold, Quote
from providers.network.stock import Refused
from providers.network.wire import ProblemCode

Break = Callable[[pytest.MonkeyPatch], None]
Twist = Callable[[httpx.Request, httpx.Response], httpx.Response]


# -- rules that the network itself breaks


def forgets_its_keys(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Book, "replayed", lambda *_: None)
    patch.setattr(Book, "made_with", lambda *_: None)


def takes_any_request_for_a_key(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Book, "replayed", lambda book, tenant, verb, key, _: book.made_with(tenant, verb, key))


def never_lets_a_hold_lapse(patch: pytest.MonkeyPatch) -> None:
    honest = Hold.state
    state = wire.HoldState
    patch.setattr(Hold, "state", lambda h, now: state.HELD if honest(h, now) is state.LAPSED else honest(h, now))


def starts_a_node_at_every_confirm(patch: pytest.MonkeyPatch) -> None:
    def confirm(exchange: Any, tenant: str, hold_id: str, request: wire.ConfirmRequest, *, key: str) -> Any:
        now = exchange._book.now()
        unit = exchange._start(exchange._hold(tenant, hold_id), request, now)
        return exchange.reservation(tenant, unit.reservation_id)

    patch.setattr(Exchange, "confirm", confirm)


def refuses_a_second_release(patch: pytest.MonkeyPatch) -> None:
    honest = Exchange.release

    def release(exchange: Any, tenant: str, hold_id: str) -> None:
        if exchange._hold(tenant, hold_id).released:
            raise Refused(ProblemCode.NOT_FOUND, "gone")
        honest(exchange, tenant, hold_id)

    patch.setattr(Exchange, "release", release)


def charges_a_winner_its_own_bid(patch: pytest.MonkeyPatch) -> None:
    honest = Bidding._award

    def award(bidding: Any, bid: Any, units: int, price: Decimal, at: Any) -> str:
        return honest(bidding, bid, units, bid.unit_price, at)

    patch.setattr(Bidding, "_award", award)


def sells_on_expired_quotes(patch: pytest.MonkeyPatch) -> None:
    honest = Exchange.hold

    def hold(exchange: Any, tenant: str, request: wire.HoldRequest, *, key: str) -> wire.WireHold:
        quote: Quote | None = exchange._book.quotes.get(request.quote_id)
        if quote is not None:
            later = exchange._book.now() + timedelta(minutes=1)
            quote.firm = quote.firm.model_copy(update={"expires_at": later})
        return honest(exchange, tenant, request, key=key)

    patch.setattr(Exchange, "hold", hold)


def takes_any_currency(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Book, "amount", lambda _, money, __: money.amount)


def ends_the_talk_at_the_first_rejection(patch: pytest.MonkeyPatch) -> None:
    honest = Talk.propose

    def propose(talk: Talk, *arguments: Any) -> None:
        honest(talk, *arguments)
        if talk.reply.value == "rejected":
            talk.end()

    patch.setattr(Talk, "propose", propose)


def repeats_events_from_the_start(patch: pytest.MonkeyPatch) -> None:
    honest = EventLog.after
    patch.setattr(EventLog, "after", lambda log, tenant, _, now: honest(log, tenant, 0, now))


def tells_no_capacity(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Exchange, "_tell_capacity", lambda *_: None)


# -- rules that are broken on the wire


def _on(path: str, change: Callable[[Any], Any], method: str = "GET") -> Twist:
    def twist(request: httpx.Request, answer: httpx.Response) -> httpx.Response:
        if request.url.path != path or request.method != method or answer.status_code >= 300:
            return answer
        body = change(json.loads(answer.read()))
        return httpx.Response(answer.status_code, json=body)

    return twist


def _cheaper_than_signed(body: Any) -> Any:
    for offer in body["offers"]:
        offer["price"]["amount"] = "0.001"
    return body


def _unsigned(body: Any) -> Any:
    return {**body, "proof": None}


def _one_row_less(body: Any) -> Any:
    return {**body, "rows": body["rows"][1:]}


def _larger_than_its_type(body: Any) -> Any:
    for kind in body["shard_types"]:
        kind["resources"]["vcpus"] = 1.0
    return body


def plain_errors(request: httpx.Request, answer: httpx.Response) -> httpx.Response:
    if answer.status_code < 400:
        return answer
    return httpx.Response(answer.status_code, json={"error": "no"})


def no_retry_after(request: httpx.Request, answer: httpx.Response) -> httpx.Response:
    if answer.status_code != 429:
        return answer
    return httpx.Response(429, content=answer.read(), headers={"Content-Type": "application/problem+json"})


def repeats_what_was_sent(request: httpx.Request, answer: httpx.Response) -> httpx.Response:
    if answer.status_code not in (400, 422):
        return answer
    body = {**json.loads(answer.read()), "detail": request.read().decode(errors="replace")}
    return httpx.Response(answer.status_code, json=body, headers={"Content-Type": "application/problem+json"})


underprices = _on("/v1/offers", _cheaper_than_signed)
quotes_unsigned = _on("/v1/quotes", _unsigned, "POST")
bills_wrongly = _on("/v1/bills", _one_row_less)
lies_about_sizes = _on("/v1/shard-types", _larger_than_its_type)
