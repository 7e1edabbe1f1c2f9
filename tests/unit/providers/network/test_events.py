import json
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal

import httpx
import pytest

from engine.clock import ManualClock
from engine.errors import AuthenticationFailed, ProviderAnswerInvalid, ProviderUnavailable
from providers.network.events import EventLog
from providers.network.exchange import Exchange
from providers.network.wire_records import CapacityEvent, GapEvent, PriceEvent
from tests.unit.providers.network.networks import START, TENANT, a_client, a_network, held, money, served


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def network(clock: ManualClock) -> Exchange:
    return a_network(clock)


def _log(count: int, *, kept: int = 100) -> EventLog:
    log = EventLog(kept=kept)
    for _ in range(count):
        log.add(None, lambda number: PriceEvent(event_id=number, at=START, offer_id="lot", price=money("1")))
    return log


def _ids(log: EventLog, after: int) -> list[int]:
    return [event.event_id for event in log.after(TENANT, after, START)]


def test_events_are_numbered_and_resumed_without_loss_or_repeat() -> None:
    log = _log(5)
    assert _ids(log, 0) == [1, 2, 3, 4, 5]
    assert _ids(log, 3) == [4, 5]
    assert _ids(log, 5) == []


def test_who_comes_too_late_is_told_of_the_gap() -> None:
    log = _log(10, kept=3)
    first, *rest = log.after(TENANT, 4, START)
    assert isinstance(first, GapEvent)
    assert [first.event_id, *(event.event_id for event in rest)] == [7, 8, 9, 10]
    assert _ids(log, 7) == [8, 9, 10], "nothing is missing behind 7"
    assert isinstance(log.after(TENANT, 0, START)[0], GapEvent)


def test_an_id_of_another_life_is_a_gap() -> None:
    (gap,) = _log(2).after(TENANT, 9, START)
    assert isinstance(gap, GapEvent)
    assert _ids(_log(2), gap.event_id) == []


def test_capacity_changes_are_told_even_when_a_hold_lapses_by_itself(network: Exchange, clock: ManualClock) -> None:
    held(network, 2)
    assert [event.available for event in _capacity(network)] == [1]
    clock.advance(timedelta(minutes=15))
    assert [event.available for event in _capacity(network)] == [1, 3]
    assert [event.available for event in _capacity(network)] == [1, 3], "no change, no event"


def _capacity(network: Exchange) -> list[CapacityEvent]:
    return [event for event in network.events_after(TENANT, 0) if isinstance(event, CapacityEvent)]


# -- over the wire


def test_the_stream_is_resumed_behind_the_last_event(network: Exchange, clock: ManualClock) -> None:
    client = a_client(served(network, clock), clock)
    network.change_price("lot", Decimal("0.06"))
    network.change_price("lot", Decimal("0.07"))
    seen = list(client.stream())
    assert [(event.type, event.event_id) for event in seen] == [("price", 1), ("price", 2)]
    assert list(client.stream(2)) == []
    network.change_price("lot", Decimal("0.08"))
    (after,) = client.stream(2)
    assert isinstance(after, PriceEvent)
    assert (after.event_id, after.price) == (3, money("0.08"))


def test_what_goes_over_the_wire_is_server_sent_events(network: Exchange, clock: ManualClock) -> None:
    network.change_price("lot", Decimal("0.06"))
    headers = {"Authorization": "Bearer secret"}
    with httpx.Client(base_url="https://tiny.test", transport=served(network, clock), headers=headers) as http:
        answer = http.get("/v1/events/stream?wait_seconds=0")
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.text.splitlines()
        assert "id: 1" in lines
        assert "event: price" in lines
        (data,) = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
        assert json.loads(data)["price"] == {"amount": "0.06", "currency": "USD"}
        refused = http.get("/v1/events/stream", headers={"Last-Event-ID": "yesterday"})
        assert (refused.status_code, refused.headers["content-type"]) == (422, "application/problem+json")


def test_a_stream_that_breaks_or_is_none(clock: ManualClock) -> None:
    def breaking(_: httpx.Request) -> httpx.Response:
        class Broken(httpx.SyncByteStream):
            def __iter__(self) -> Iterator[bytes]:
                yield b'event: gap\ndata: {"type": "gap", "event_id": 3, "at": "2026-03-01T12:00:00Z"}\nid: 3\n\n'
                raise httpx.ReadError("reset")

        return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, stream=Broken())

    events = a_client(httpx.MockTransport(breaking), clock).stream()
    assert next(events).event_id == 3
    with pytest.raises(ProviderUnavailable, match="the stream of events broke"):
        next(events)
    page = httpx.MockTransport(lambda _: httpx.Response(200, text="<html>", headers={"Content-Type": "text/html"}))
    with pytest.raises(ProviderAnswerInvalid):
        list(a_client(page, clock).stream())
    with pytest.raises(AuthenticationFailed):
        list(a_client(served(a_network(clock), clock), clock, token="wrong").stream())
    busy = httpx.MockTransport(lambda _: httpx.Response(503))
    with pytest.raises(ProviderUnavailable):
        list(a_client(busy, clock).stream())
