"""Whether the forecaster is to be trained again. Pure."""

from datetime import datetime, timedelta

from engine.model.value import Utc, Value
from engine.retraining.base import Cause, Retraining, Verdict

FEWEST_VALUES = 500
"""Measured values, over all series, below which fine-tuning teaches nothing."""


class RetrainingTerms(Value):
    """What the configuration says. ``drift``: network's loss / seasonal naive's above which it has drifted."""

    every: timedelta = timedelta(days=7)
    min_new: timedelta = timedelta(days=1)
    drift: float = 1.0
    min_gain: float = 0.01


class Known(Value):
    """The usage at hand, and the last retraining on usage of this metric and step (promoted or not; None: there was
    none). ``drift``: the standing network's loss / seasonal naive's on recent origins; None: not measured.
    """

    fingerprint: str
    values: int
    measured_end: Utc
    synthetic: bool
    last: Retraining | None
    drift: float | None = None


def decide(known: Known, terms: RetrainingTerms, now: datetime, *, asked: bool = False) -> Verdict:
    """``asked``: by hand, which stands in for every reason but not for usage that was trained on already."""
    if known.last is not None and known.last.fingerprint == known.fingerprint:
        return _no(f"retraining {known.last.version} was made from exactly this usage")
    if asked:
        return Verdict(cause=Cause.ASKED, why="asked for by hand")
    obstacle = not_ready(known, terms)
    if obstacle:
        return _no(obstacle)
    if known.last is None:
        return Verdict(cause=Cause.FIRST, why=f"{known.values} values, and never trained on them")
    if known.drift is not None and known.drift > terms.drift:
        why = f"drift: the network loses {known.drift:.2f} times what seasonal naive does (limit {terms.drift:g})"
        return Verdict(cause=Cause.DRIFT, why=why)
    age = now - known.last.ended_at
    if age >= terms.every:
        return Verdict(cause=Cause.SCHEDULE, why=f"the last training is {_days(age)} ago (every {_days(terms.every)})")
    fits = "" if known.drift is None else f", and the network loses {known.drift:.2f} times what seasonal naive does"
    return _no(f"the last training is {_days(age)} ago (every {_days(terms.every)}){fits}")


def not_ready(known: Known, terms: RetrainingTerms) -> str:
    """Why no training can be worth it, drift or not; empty: it can."""
    if known.synthetic:
        return "the usage is made up"
    if known.values < FEWEST_VALUES:
        return f"{known.values} measured values; at least {FEWEST_VALUES} are needed"
    if known.last is not None:
        new = known.measured_end - known.last.measured_end
        if new < terms.min_new:
            seen = _days(max(new, timedelta(0)))
            return f"{seen} of new usage since the last training; at least {_days(terms.min_new)} are needed"
    return ""


def _no(why: str) -> Verdict:
    return Verdict(cause=None, why=why)


def _days(span: timedelta) -> str:
    return f"{span / timedelta(days=1):.3g} days"
