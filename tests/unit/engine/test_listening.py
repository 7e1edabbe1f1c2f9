import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from random import Random

import pytest

from engine.clock import ManualClock
from engine.errors import ProviderUnavailable
from engine.events import Event
from engine.listening import ASK_AGAIN_SECONDS, Listener, listening
from engine.model.ids import NodeId, OfferId
from engine.model.market import Offer, OfferQuery, Quote, ReclaimNotice
from engine.model.value import Interval
from providers.base import EventKind, ProviderEvent

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
Connection = Sequence[ProviderEvent | Exception | timedelta]
"""What is told, how long it is quiet, and how it ends."""


def notice(node: str = "n1") -> ReclaimNotice:
    return ReclaimNotice(node=NodeId(node), provider="agora", seen_at=NOW, at=NOW + timedelta(seconds=30))


def reclaim(number: int, node: str = "n1") -> ProviderEvent:
    return ProviderEvent(id=str(number), kind=EventKind.RECLAIM, notice=notice(node))


def price(number: int) -> ProviderEvent:
    return ProviderEvent(id=str(number), kind=EventKind.PRICE, offer=OfferId("agora/lot"))


class Polled:
    """Gives notice only when it is asked."""

    name = "agora"

    def __init__(self, clock: ManualClock, notices: Iterable[ReclaimNotice] = ()) -> None:
        self.clock, self.notices = clock, list(notices)
        self.polls: list[datetime] = []
        self.down = False

    def offers(self, need: OfferQuery) -> Iterable[Offer]:
        return ()

    def quote(self, offer: Offer, quantity: int, term: Interval) -> Quote:
        raise NotImplementedError

    def reclaim_notices(self, since: datetime) -> Iterable[ReclaimNotice]:
        self.polls.append(self.clock.now())
        if self.down:
            raise ProviderUnavailable("agora: cannot be reached")
        return [one for one in self.notices if one.seen_at >= since]


class Streaming(Polled):
    """Every connection tells its events, then breaks, or lasts as long as it was asked to."""

    def __init__(self, clock: ManualClock, *connections: Connection, has_one: bool = True) -> None:
        super().__init__(clock)
        self.connections, self.has_one = list(connections), has_one
        self.resumed: list[str | None] = []
        self.opened: list[datetime] = []

    def tells_events(self) -> bool:
        return self.has_one

    def event_stream(self, after: str | None, *, wait_seconds: float) -> Generator[ProviderEvent, None, None]:
        self.resumed.append(after)
        self.opened.append(self.clock.now())
        for event in self.connections.pop(0) if self.connections else ():
            if isinstance(event, Exception):
                raise event
            if isinstance(event, timedelta):
                self.clock.advance(event)
            else:
                yield event
        self.clock.sleep(wait_seconds)


class Heard:
    def __init__(self, clock: ManualClock, provider: Polled, seed: int = 0) -> None:
        self.notices: list[NodeId] = []
        self.said: list[str] = []
        self.refusals: list[Exception] = []
        self.listener = Listener(
            provider,
            clock=clock,
            rng=Random(seed),
            on_notice=self._take,
            observe=lambda one: self.said.append(one.text),
        )

    def _take(self, told: ReclaimNotice) -> None:
        if self.refusals:
            raise self.refusals.pop(0)
        self.notices.append(told.node)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


def test_a_notice_on_the_stream_is_handed_over_without_asking(clock: ManualClock) -> None:
    network = Streaming(clock, [price(1), reclaim(2)])
    heard = Heard(clock, network)
    heard.listener.step()
    assert heard.notices == ["n1"]
    assert (network.polls, heard.said) == ([], [])


def test_a_stream_goes_on_behind_its_last_event(clock: ManualClock) -> None:
    network = Streaming(clock, [price(1), reclaim(2)], [], [reclaim(3, "n2"), ProviderUnavailable("broke")])
    heard = Heard(clock, network)
    for _ in range(4):
        heard.listener.step()
    assert network.resumed == [None, "2", "2", "3"]
    assert heard.notices == ["n1", "n2"]


def test_while_the_stream_is_down_it_is_polled(clock: ManualClock) -> None:
    network = Streaming(clock, *([ProviderUnavailable("refused")] for _ in range(12)))
    heard = Heard(clock, network)
    heard.listener.step()
    assert len(network.polls) >= 1
    network.notices.append(notice())
    for _ in range(11):
        heard.listener.step()
    assert heard.notices == ["n1"], "handed over once, however often it is told"
    between = [later - earlier for earlier, later in pairwise(network.polls)]
    assert max(between) <= timedelta(seconds=6.1)
    assert heard.said == ["agora is polled for reclaim notices: refused"], "said once, not twelve times"


def test_the_wait_for_the_stream_grows_and_differs(clock: ManualClock) -> None:
    def waits(seed: int, failures: int = 40) -> list[float]:
        network = Streaming(clock, *([ProviderUnavailable("refused")] for _ in range(failures)))
        heard, began = Heard(clock, network, seed), []
        for _ in range(failures):
            began.append(clock.now())
            heard.listener.step()
        began.append(clock.now())
        return [(later - earlier).total_seconds() for earlier, later in pairwise(began)]

    first = waits(1)
    assert first[0] <= 1.0
    assert max(first) > 30
    assert max(first) <= 60.0
    assert waits(2) != first


def test_a_stream_that_ends_at_once_is_no_busy_loop(clock: ManualClock) -> None:
    class Slammed(Streaming):
        def event_stream(self, after: str | None, *, wait_seconds: float) -> Generator[ProviderEvent, None, None]:
            self.resumed.append(after)
            yield from ()

    network = Slammed(clock)
    heard = Heard(clock, network)
    for _ in range(20):
        heard.listener.step()
    assert clock.now() - NOW > timedelta(seconds=60)
    assert "ends after 0 s" in heard.said[0]


def test_a_good_stream_that_breaks_is_tried_again_soon(clock: ManualClock) -> None:
    refused, minute = ProviderUnavailable("refused"), timedelta(minutes=1)
    network = Streaming(clock, *([refused] for _ in range(9)), [price(7), minute, ProviderUnavailable("broke")])
    heard = Heard(clock, network)
    for _ in range(11):
        heard.listener.step()
    assert network.opened[-1] - network.opened[-2] - minute <= timedelta(seconds=1)
    assert network.resumed[-1] == "7"


def test_a_network_without_a_stream_is_polled_and_asked_again_later(clock: ManualClock) -> None:
    network = Streaming(clock, [reclaim(1, "n2")], has_one=False)
    network.notices.append(notice())
    heard = Heard(clock, network)
    heard.listener.step()
    assert heard.notices == ["n1"]
    assert len(network.polls) > 90
    assert clock.now() - NOW == timedelta(seconds=ASK_AGAIN_SECONDS)
    assert network.resumed == []
    network.has_one = True
    heard.listener.step()
    assert heard.notices == ["n1", "n2"]


def test_a_provider_that_knows_no_streams(clock: ManualClock) -> None:
    heard = Heard(clock, Polled(clock, [notice()]))
    heard.listener.step()
    assert heard.notices == ["n1"]


def test_a_notice_that_cannot_be_taken_comes_again(clock: ManualClock) -> None:
    network = Streaming(clock, [price(1), reclaim(2)], [reclaim(2)])
    heard = Heard(clock, network)
    heard.refusals = [RuntimeError("the store is locked")]
    heard.listener.step()
    assert heard.notices == []
    heard.listener.step()
    assert network.resumed == [None, "1"], "it goes on before the event that was not taken"
    assert heard.notices == ["n1"]


def test_a_notice_that_is_refused_does_not_keep_the_next(clock: ManualClock) -> None:
    network = Streaming(clock, [ProviderUnavailable("refused")])
    network.notices = [notice("n1"), notice("n2")]
    heard = Heard(clock, network)
    heard.refusals = [RuntimeError("the store is locked")]
    heard.listener.step()
    assert heard.notices[0] == "n2"


def test_a_gap_is_filled_by_asking(clock: ManualClock) -> None:
    network = Streaming(clock, [ProviderEvent(id="9", kind=EventKind.GAP)])
    network.notices.append(notice())
    heard = Heard(clock, network)
    heard.listener.step()
    assert heard.notices == ["n1"]
    heard.listener.step()
    assert network.resumed == [None, "9"]


def test_a_provider_that_is_wholly_down_costs_nothing_but_its_own(clock: ManualClock) -> None:
    network = Streaming(clock, *([ProviderUnavailable("refused")] for _ in range(5)))
    network.down = True
    heard = Heard(clock, network)
    for _ in range(5):
        heard.listener.step()
    assert len(heard.said) >= 2, "both are told: the stream, and the polling"


def test_nothing_is_handed_over_once_listening_has_ended(clock: ManualClock) -> None:
    told, may_tell = threading.Event(), threading.Event()

    class Late(Streaming):
        def event_stream(self, after: str | None, *, wait_seconds: float) -> Generator[ProviderEvent, None, None]:
            yield reclaim(1)
            told.set()
            may_tell.wait(5)
            yield reclaim(2, "n2")

    notices: list[NodeId] = []
    said: Callable[[Event], None] = lambda _: None  # noqa: E731
    network = Late(clock)
    with listening([network], clock=clock, rng=Random(0), on_notice=lambda n: notices.append(n.node), observe=said):
        assert told.wait(5)
        threads = [one for one in threading.enumerate() if one.name == "listen-agora"]
    may_tell.set()
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()
    assert notices == ["n1"]
