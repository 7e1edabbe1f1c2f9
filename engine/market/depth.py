"""How deep a place is believed to be: told by denials, raised by grants, back to what is advertised in time. Pure.

A denial or a reclaim tells the depth, a grant that it is at least so much. What was told stands for ``STANDS``; from
then on half of what is missing to the advertised depth comes back every ``HALF_LIFE``, and after ``MEMORY`` it counts
no more. Nothing told makes it more than what is advertised now.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import exp, floor, log

from engine.market.observations import Answer, AnswerKind
from engine.model.market import DepthBelief

STANDS = timedelta(minutes=30)
HALF_LIFE = timedelta(hours=3)
MEMORY = timedelta(hours=24)
UNTOLD_UNITS = 20
"""To which a belief comes back where the provider does not advertise how much it has."""


def drifted(told: float, usual: float, age: float, life: float) -> float:
    """What was ``told`` counts 1/e once ``age`` is ``life``, less and less later; what is ``usual`` takes its place."""
    still = exp(-age / life)
    return told * still + usual * (1 - still)


@dataclass(frozen=True)
class _Known:
    units: float
    at: datetime
    """Since when it stands."""
    because: Answer

    def by(self, now: datetime, usual: float) -> float:
        age = max(timedelta(0), now - self.at - STANDS)
        return drifted(self.units, usual, age / HALF_LIFE, 1 / log(2))


def believed_depth(
    answers: Iterable[Answer], *, advertised: int | None, ours: int, now: datetime
) -> DepthBelief | None:
    """Of one place; None where nothing limits it. ``advertised`` units are on offer beside ``ours`` that run there."""
    usual = ours + (UNTOLD_UNITS if advertised is None else advertised)
    known: _Known | None = None
    lately = (answer for answer in answers if now - MEMORY < answer.at <= now)
    for answer in sorted(lately, key=lambda answer: (answer.at, answer.limits, -answer.depth, answer.event)):
        known = _after(known, answer, usual)
    if known is None:
        return None
    units = floor(known.by(now, usual) + 0.5)
    if advertised is not None:
        units = min(units, usual)
    return DepthBelief(depth=units, ours=ours, advertised=advertised, told=known.because.told(now))


def free_units(belief: DepthBelief) -> int:
    """Units that can be had beside ours."""
    return max(0, belief.depth - belief.ours)


def _after(known: _Known | None, answer: Answer, usual: float) -> _Known | None:
    before = answer.depth if known is None else known.by(answer.at, usual)
    if answer.kind is AnswerKind.QUOTE and answer.limits:
        # So many at once were too many, which tells nothing of fewer: what is believed already may stand.
        return _Known(max(answer.held, min(before, answer.depth)), answer.at, answer)
    if answer.limits:
        return _Known(answer.depth, answer.at, answer)
    if known is None or answer.depth <= before:
        return known
    # How much more there is was not told: it drifts on, but no sooner than what was denied.
    return _Known(answer.depth, max(known.at, answer.at - STANDS), known.because)
