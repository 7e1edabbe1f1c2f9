"""What happened on a network, in order, for as long as it is kept."""

from collections import deque
from collections.abc import Callable
from datetime import datetime

from providers.network.wire_records import AnyEvent, GapEvent

_KEPT = 10_000


class EventLog:
    """Not safe for threads by itself. ``kept`` events are remembered; who comes later is told of the gap."""

    def __init__(self, *, kept: int = _KEPT) -> None:
        self._events: deque[tuple[str | None, AnyEvent]] = deque(maxlen=kept)
        self._last = 0

    def add(self, tenant: str | None, make: Callable[[int], AnyEvent]) -> None:
        """``make`` gets the event's id; ``tenant`` None: everybody may see it."""
        self._last += 1
        self._events.append((tenant, make(self._last)))

    def since(self, tenant: str, moment: datetime) -> list[AnyEvent]:
        return [event for event in self._seen_by(tenant) if event.at >= moment]

    def after(self, tenant: str, event_id: int, now: datetime) -> list[AnyEvent]:
        """Behind ``event_id`` (0: all that is kept), with a gap event first where some are gone for good.

        An id that was never given is one of another life of this network: everything since then is a gap.
        """
        oldest = self._last - len(self._events) + 1
        if event_id > self._last:
            return [GapEvent(event_id=max(1, self._last), at=now)]
        later = [event for event in self._seen_by(tenant) if event.event_id > event_id]
        if 0 < event_id < oldest - 1 or (event_id == 0 and oldest > 1):
            return [GapEvent(event_id=oldest - 1, at=now), *later]
        return later

    def _seen_by(self, tenant: str) -> list[AnyEvent]:
        return [event for owner, event in self._events if owner in (None, tenant)]
