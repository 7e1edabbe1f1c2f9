"""Values that the tests of retrainings share."""

from datetime import UTC, datetime, timedelta

from engine.retraining.base import Cause, Comparison, Retraining, UsageTaken

NOW = datetime(2026, 11, 23, tzinfo=UTC)
DAY = timedelta(days=1)


def usage_taken(key: str = "k", fingerprint: str = "new") -> UsageTaken:
    return UsageTaken(
        key=key, fingerprint=fingerprint, metric="cpu_cores", step=timedelta(hours=1), series=3, values=3000,
        measured_end=NOW, synthetic=False,
    )  # fmt: skip


def compared(candidate: float, incumbent: float) -> Comparison:
    return Comparison(candidate=candidate, incumbent=incumbent, incumbent_name="shipped", series=3, origins=24)


def record(version: int = 1, *, fingerprint: str = "old", promoted: bool = True, age: timedelta = DAY) -> Retraining:
    taken = usage_taken(fingerprint=fingerprint)
    return Retraining(
        version=version, fingerprint=fingerprint, metric=taken.metric, step=taken.step, series=3, values=3000,
        measured_end=NOW - age, cause=Cause.FIRST, why="first", ended_at=NOW - age, model="m",
        comparison=compared(0.7, 0.8), promoted=promoted, outcome="0.7 against 0.8",
    )  # fmt: skip
