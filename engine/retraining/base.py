"""What a retraining takes, finds and leaves behind; and the steps that do it."""

from datetime import timedelta
from enum import StrEnum
from typing import Protocol

from engine.model.value import Utc, Value


class Cause(StrEnum):
    FIRST = "first"
    SCHEDULE = "schedule"
    DRIFT = "drift"
    ASKED = "asked"


class Verdict(Value):
    """Whether to train, and why (or why not). No cause: do not."""

    cause: Cause | None
    why: str


class UsageTaken(Value):
    """A training set, kept under the retraining's key. ``fingerprint``: of every value, name, start and step."""

    key: str
    fingerprint: str
    metric: str
    step: timedelta
    series: int
    values: int
    """Measured values over all series."""
    measured_end: Utc
    synthetic: bool


class Comparison(Value):
    """Geometric means over ``series`` of loss / seasonal naive's, on the same held-out origins; smaller is better."""

    candidate: float
    incumbent: float
    incumbent_name: str
    series: int
    origins: int


class Candidate(Value):
    """``failure``: why there is none; then ``model`` is empty."""

    model: str
    comparison: Comparison | None
    failure: str = ""


class Retraining(Value):
    """One retraining that has ended, in the registry. ``model``: the network's folder; empty: none came of it."""

    version: int
    fingerprint: str
    metric: str
    step: timedelta
    series: int
    values: int
    measured_end: Utc
    cause: Cause
    why: str
    ended_at: Utc
    model: str
    comparison: Comparison | None
    promoted: bool
    outcome: str
    """Why it was promoted, or was not."""


class RetrainingReport(Value):
    """What one run of the workflow did. No ``record``: nothing was trained, and ``verdict`` says why."""

    key: str
    verdict: Verdict
    record: Retraining | None = None


class RetrainingSteps(Protocol):
    """Step by step; each may be called again after a crash and must then find its own traces."""

    def take(self, key: str) -> UsageTaken:
        """Keep the usage as it is now under the key. Raises BadUsageData where there is none."""
        ...

    def decide(self, taken: UsageTaken, asked: bool) -> Verdict: ...

    def train(self, taken: UsageTaken) -> str:
        """The candidate's folder in the registry; found there when it was trained before. Raises BadUsageData."""
        ...

    def evaluate(self, taken: UsageTaken, model: str) -> Comparison: ...

    def conclude(self, taken: UsageTaken, verdict: Verdict, candidate: Candidate) -> Retraining:
        """Promote the candidate if it is better, and record; the first record of a fingerprint stays."""
        ...

    def leave(self, key: str) -> None:
        """Forget the training set. Nothing there = success."""
        ...


class Retrainer(Protocol):
    def due(self) -> Verdict:
        """Whether a retraining should start now, from what the last forecast saw; quick, and reads nothing anew."""
        ...
