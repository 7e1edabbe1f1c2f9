from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta

import httpx
import pytest

from engine.clock import ManualClock
from engine.errors import ProviderAnswerInvalid, ProviderUnavailable
from providers.network.client import NetworkClient
from providers.network.event_source import MAX_EVENT_BYTES, read_events
from providers.network.wire_records import AnyEvent, GapEvent
from tests.unit.providers.network.networks import START, a_client

SILENCE = timedelta(seconds=45)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


def _event(number: int, ending: str = "\n") -> bytes:
    data = GapEvent(event_id=number, at=START).model_dump_json()
    return f"event: gap{ending}id: {number}{ending}data: {data}{ending}{ending}".encode()


class Told(httpx.SyncByteStream):
    """Sends each chunk after that many seconds of quiet."""

    def __init__(self, clock: ManualClock, chunks: Iterable[tuple[float, bytes]]) -> None:
        self._clock, self._chunks = clock, chunks

    def __iter__(self) -> Iterator[bytes]:
        for quiet, chunk in self._chunks:
            self._clock.sleep(quiet)
            yield chunk


def _answer(
    clock: ManualClock, chunks: Iterable[tuple[float, bytes]], kind: str = "text/event-stream"
) -> httpx.Response:
    request = httpx.Request("GET", "https://tiny.test/v1/events/stream")
    return httpx.Response(200, headers={"content-type": kind}, stream=Told(clock, chunks), request=request)


def _read(clock: ManualClock, chunks: Iterable[tuple[float, bytes]], kind: str = "text/event-stream") -> list[int]:
    return [event.event_id for event in read_events(_answer(clock, chunks, kind), now=clock.now, silence=SILENCE)]


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_events_however_they_are_cut_and_ended(clock: ManualClock, ending: str, size: int) -> None:
    text = b": open-capacity\n\n" + _event(1, ending) + b": alive\n\n" + _event(2, ending) + b": alive\n\n"
    assert _read(clock, [(0, text[at : at + size]) for at in range(0, len(text), size)]) == [1, 2]


def test_signs_of_life_keep_a_quiet_stream_for_hours(clock: ManualClock) -> None:
    assert _read(clock, [(0, _event(1)), *[(15, b": alive\n\n")] * 1000, (15, _event(2))]) == [1, 2]
    assert clock.now() - START > timedelta(hours=4)


def test_bytes_that_never_become_an_event_are_no_sign_of_life(clock: ManualClock) -> None:
    heard: list[AnyEvent] = []
    answer = _answer(clock, [(0, _event(1)), *[(1, b"x")] * 1000])
    with pytest.raises(httpx.ReadTimeout):
        heard.extend(read_events(answer, now=clock.now, silence=SILENCE))
    assert [event.event_id for event in heard] == [1]
    assert clock.now() - START <= SILENCE + timedelta(seconds=2)


def _forever(chunk: bytes) -> Iterator[tuple[float, bytes]]:
    while True:
        yield 0, chunk


@pytest.mark.parametrize("chunk", [b"x" * 1000, b"data: more\n"])
def test_an_event_without_end_is_refused_before_it_fills_the_memory(clock: ManualClock, chunk: bytes) -> None:
    with pytest.raises(ProviderAnswerInvalid, match=f"larger than {MAX_EVENT_BYTES} bytes"):
        _read(clock, _forever(chunk))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (b"data: {}\n\n", "text/event-stream"),
        (b"data: not json\n\n", "text/event-stream"),
        (_event(1), "application/json"),
        (b"<html>", "text/html"),
    ],
)
def test_rubbish(clock: ManualClock, text: bytes, kind: str) -> None:
    with pytest.raises(ProviderAnswerInvalid, match="not a stream of events"):
        _read(clock, [(0, text)], kind)


def _client(clock: ManualClock, handler: Callable[[httpx.Request], httpx.Response]) -> NetworkClient:
    return a_client(httpx.MockTransport(handler), clock)


def test_a_client_names_what_it_saw_last_and_tells_a_hanging_stream_from_an_end(clock: ManualClock) -> None:
    asked: list[httpx.Request] = []

    def hangs(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return _answer(clock, [(0, _event(8)), *[(1, b"x")] * 100])

    stream = _client(clock, hangs).stream(7, wait_seconds=300)
    assert next(stream).event_id == 8
    with pytest.raises(ProviderUnavailable, match="the stream of events broke"):
        next(stream)
    (request,) = asked
    assert (request.headers["last-event-id"], request.url.params["wait_seconds"]) == ("7", "300")
    assert request.extensions["timeout"]["read"] == 45


def test_a_refusal_without_end_is_given_up(clock: ManualClock) -> None:
    def drips(_: httpx.Request) -> httpx.Response:
        return httpx.Response(404, stream=Told(clock, ((1, b" ") for _ in range(1000))))

    with pytest.raises(ProviderUnavailable):
        list(_client(clock, drips).stream())
    assert clock.now() - START < timedelta(seconds=20)
