"""What providers tell by themselves, heard at once: by a stream of events where there is one, by asking elsewhere.

One daemon thread a provider. A stream is resumed behind its last event. While it is down the provider is asked for
reclaim notices every few seconds, and the stream is tried again after a growing wait (full jitter, a minute at most).
Nothing is kept but the last event's id and the nodes whose notices were handed over.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from random import Random

from engine.clock import Clock
from engine.errors import ShardwrightError
from engine.events import Event, Observe
from engine.metrics import observe_provider_event
from engine.model.ids import NodeId
from engine.model.market import ReclaimNotice
from providers.base import EventKind, Provider, ProviderEvent, SupportsEventStream, SupportsReclaimNotices

WAIT_SECONDS = 300.0
"""How long one connection is asked to last."""
STEADY_SECONDS = 30.0
"""A stream that lasted this long was a good one: the next wait is short again."""
POLL_SECONDS = 5.0
ASK_AGAIN_SECONDS = 600.0
"""How long a provider without a stream is only polled before it is asked whether it has one now."""
_BACK_OFF_SECONDS = (1.0, 60.0)
_LOOK_BACK = timedelta(hours=1)
"""How far back polling asks: notices of the time in which nobody listened, and clocks that differ."""
_REMEMBERED_NODES = 10_000

OnNotice = Callable[[ReclaimNotice], None]
"""May be called again for the same node; raises when the notice should come again."""


class Listener:
    """Hears one provider. Not safe for threads: one of them runs it."""

    def __init__(
        self,
        provider: Provider,
        *,
        clock: Clock,
        rng: Random,
        on_notice: OnNotice,
        observe: Observe,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._provider, self._clock, self._rng = provider, clock, rng
        self._on_notice, self._observe, self._stopped = on_notice, observe, stopped
        self._last: str | None = None
        self._failures = 0
        self._said = ""
        self._handed_over: OrderedDict[NodeId, None] = OrderedDict()

    def run(self) -> None:
        while not self._stopped():
            self.step()

    def step(self) -> None:
        """One connection from its opening to its end; where it did not go well, polling until the next one is due."""
        began = self._clock.now()
        try:
            problem = self._follow()
        except Exception as error:  # whatever an adapter or a store does, listening goes on
            problem = _told(error)
        lasted = (self._clock.now() - began).total_seconds()
        if problem is None and lasted < STEADY_SECONDS and not self._stopped():
            problem = f"the stream ends after {lasted:.0f} s"
        if problem is None:
            self._failures, self._said = 0, ""
            return
        self._failures = 1 if lasted >= STEADY_SECONDS else self._failures + 1
        self._say(problem)
        shortest, longest = _BACK_OFF_SECONDS
        self._poll_for(self._rng.uniform(0.0, min(longest, shortest * 2.0 ** min(self._failures - 1, 10))))

    def _follow(self) -> str | None:
        """Until the stream ends; None: as it should."""
        provider = self._provider
        if not isinstance(provider, SupportsEventStream) or not provider.tells_events():
            self._poll_for(ASK_AGAIN_SECONDS)
            return None
        with closing(provider.event_stream(self._last, wait_seconds=WAIT_SECONDS)) as stream:
            for event in stream:
                if self._stopped():
                    return None
                self._take(event)
                self._last = event.id
        return None

    def _take(self, event: ProviderEvent) -> None:
        if event.kind is not EventKind.RECLAIM:
            observe_provider_event(self._provider.name, event.kind)
        if event.notice is not None:
            self._hand_over(event.notice)
        if event.kind is EventKind.GAP:
            self._poll()

    def _poll_for(self, seconds: float) -> None:
        """At least once, so that no notice waits for the stream to come back."""
        ends_at = self._clock.now() + timedelta(seconds=seconds)
        while not self._stopped():
            try:
                self._poll()
            except Exception as error:  # as above
                self._say(_told(error))
            left = (ends_at - self._clock.now()).total_seconds()
            if left > 0:
                self._clock.sleep(min(left, POLL_SECONDS * self._rng.uniform(0.8, 1.2)))
            if self._clock.now() >= ends_at:
                return

    def _poll(self) -> None:
        """Raises the last failure, after every notice was tried."""
        if not isinstance(self._provider, SupportsReclaimNotices):
            return
        failure: Exception | None = None
        for notice in self._provider.reclaim_notices(self._clock.now() - _LOOK_BACK):
            try:
                self._hand_over(notice)
            except Exception as error:  # one that cannot be taken now does not keep the others
                failure = error
        if failure is not None:
            raise failure

    def _hand_over(self, notice: ReclaimNotice) -> None:
        if notice.node in self._handed_over:
            return
        self._on_notice(notice)
        self._handed_over[notice.node] = None
        while len(self._handed_over) > _REMEMBERED_NODES:
            self._handed_over.popitem(last=False)

    def _say(self, problem: str) -> None:
        """Once each, not with every try."""
        if problem != self._said:
            self._observe(Event(step="listen", text=f"{self._provider.name} is polled for reclaim notices: {problem}"))
        self._said = problem


@contextmanager
def listening(
    providers: Iterable[Provider], *, clock: Clock, rng: Random, on_notice: OnNotice, observe: Observe
) -> Iterator[None]:
    """To every provider that gives notice by itself. Once the context ends, ``on_notice`` is called no more."""
    stopped, handing_over = threading.Event(), threading.Lock()

    def hand_over(notice: ReclaimNotice) -> None:
        with handing_over:
            if not stopped.is_set():
                on_notice(notice)

    def told(event: Event) -> None:
        if not stopped.is_set():
            observe(event)

    for provider in providers:
        if not isinstance(provider, SupportsReclaimNotices | SupportsEventStream):
            continue
        own = Random(rng.random())  # noqa: S311 (jitter)
        listener = Listener(provider, clock=clock, rng=own, on_notice=hand_over, observe=told, stopped=stopped.is_set)
        # Daemons: a read that blocks keeps no process alive.
        threading.Thread(target=listener.run, name=f"listen-{provider.name}", daemon=True).start()
    try:
        yield
    finally:
        with handing_over:
            stopped.set()


def _told(error: Exception) -> str:
    return str(error) if isinstance(error, ShardwrightError) else f"{type(error).__name__}: {error}"
