"""Evacuations that broke off are begun anew: whoever told of the notice has had an answer, and may never tell again."""

from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta

from engine.clock import Clock
from engine.evacuation.workflow import broken_off, start_again
from engine.events import Event, Observe
from engine.model.ids import NodeId

EVERY_SECONDS = 2.0
MOST = 10
"""Times for a node and process, the last of them 17 minutes after the first. What ended that many in an error would end
the next one too, and only fill the store of the workflows. A process that is started anew, perhaps with a remedy, tries
again. A node that is gone has no limit: its evacuation has yet to give back what was paid for it, nobody else does, and
a provider may be away for longer.
"""
_FIRST_PAUSE, _LONGEST_PAUSE = timedelta(seconds=2), timedelta(hours=1)
"""Doubled every time: a database that is locked or changes servers is back soon, and a notice may be 30 s long."""
_DOUBLINGS = 11
"""After which it is the longest."""


class BrokenEvacuations:
    """For one thread. Pauses are kept in memory only, so the first look of a process waits for none."""

    def __init__(self, gone: Callable[[NodeId], bool], clock: Clock, observe: Observe) -> None:
        self._gone, self._clock, self._observe = gone, clock, observe
        self._begun: Counter[NodeId] = Counter()
        self._not_before: dict[NodeId, datetime] = {}

    def begin_anew(self) -> None:
        """Look once; those whose time has come go on."""
        for node, broken in broken_off().items():
            now, times = self._clock.now(), self._begun[node]
            if now < self._not_before.get(node, now):
                continue
            at_an_end = times + 1 >= MOST and not self._gone(node)
            if times >= MOST and at_an_end:
                continue
            self._begun[node] += 1
            self._not_before[node] = now + min(_FIRST_PAUSE * 2 ** min(times, _DOUBLINGS), _LONGEST_PAUSE)
            last = ", for the last time until the control plane is started again" if at_an_end else ""
            text = f"the evacuation of {node} broke off ({broken.why}): it is begun anew{last}"
            self._observe(Event(step="evacuation", text=text))
            start_again(node, broken.deadline)
