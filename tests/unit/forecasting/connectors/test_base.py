from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from engine.errors import AnswerTooLarge, BadUsageData
from forecasting.connectors.base import (
    MOST_HALVINGS,
    OVERLAP_STEPS,
    Span,
    frame,
    in_halves,
    require_unique,
    series_id_of,
    spans,
    written,
)

HOUR = timedelta(hours=1)
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


def cut(cursor: str | None, until: datetime, *, back: float = 10, most: int = 4) -> list[Span]:
    return list(spans(cursor, until, step=HOUR, back=back * HOUR, most_steps=most))


def test_the_first_pull_goes_back_in_whole_steps() -> None:
    found = cut(None, NOON + timedelta(minutes=40))
    assert (found[0].start, found[-1].end) == (NOON - 10 * HOUR, NOON)
    assert [span.end - span.start for span in found] == [4 * HOUR, 4 * HOUR, 2 * HOUR]
    assert all(one.end == next_one.start for one, next_one in pairwise(found))


def test_the_next_one_overlaps_for_late_samples() -> None:
    (span,) = cut(written(NOON), NOON + HOUR)
    assert span == Span(NOON - OVERLAP_STEPS * HOUR, NOON + HOUR)


@pytest.mark.parametrize("until", [NOON, NOON + timedelta(minutes=59), NOON - 5 * HOUR])
def test_before_a_whole_step_has_passed_nothing_is_asked(until: datetime) -> None:
    assert cut(written(NOON), until) == []


@pytest.mark.parametrize("cursor", ["", "yesterday", "2026-03-02T12:00:00"])
def test_a_cursor_that_is_no_time_is_refused(cursor: str) -> None:
    with pytest.raises(BadUsageData, match="is not a time"):
        cut(cursor, NOON)


def test_rows_from_times_and_from_seconds() -> None:
    rows = frame([("a", [NOON], [1.0]), ("b", [NOON.timestamp() + 0.25], [2.0]), ("c", [], [])])
    assert rows["series_id"].tolist() == ["a", "b"]
    assert rows["timestamp"].tolist() == [NOON, NOON + timedelta(milliseconds=250)]


def test_nothing_still_has_the_columns_and_their_types() -> None:
    assert frame([]).dtypes.equals(frame([("a", [NOON], [1.0])]).dtypes)


def test_one_id_for_two_series_is_refused() -> None:
    with pytest.raises(BadUsageData, match="several series have the id 'a'"):
        require_unique(["a", "b", "a"], source="s", remedy="r")


def at_most(steps: float, asked: list[Span]) -> Callable[[Span], timedelta]:
    """A server that answers no more than so many steps at once."""

    def ask(span: Span) -> timedelta:
        asked.append(span)
        if span.end - span.start > steps * HOUR:
            raise AnswerTooLarge("too many samples")
        return span.end - span.start

    return ask


def test_what_is_too_large_at_once_comes_in_halves_oldest_first() -> None:
    found = list(in_halves(Span(NOON, NOON + 11 * HOUR), HOUR, at_most(3, [])))
    assert [length for _, length in found] == [2 * HOUR, 3 * HOUR, 3 * HOUR, 3 * HOUR]
    assert (found[0][0].start, found[-1][0].end) == (NOON, NOON + 11 * HOUR)
    assert all(one.end == next_one.start for (one, _), (next_one, _) in pairwise(found))


@pytest.mark.parametrize(("steps", "calls"), [(4, 3), (10_000, MOST_HALVINGS + 1)])
def test_what_is_too_large_for_every_step_is_refused_after_a_few_calls(steps: int, calls: int) -> None:
    asked: list[Span] = []
    with pytest.raises(AnswerTooLarge):
        list(in_halves(Span(NOON, NOON + steps * HOUR), HOUR, at_most(0, asked)))
    assert len(asked) == calls


@pytest.mark.parametrize(
    ("chosen", "labels", "told"),
    [
        (["app"], {"app": "api", "job": "shop"}, "api"),
        (["app", "zone"], {"zone": "eu"}, "/eu"),
        (["app"], {"job": "shop", "__name__": "cores"}, "job=shop"),
        (["app"], {"app": " ", "__name__": "cores"}, "app= "),
        (["app"], {}, "source"),
        ([], {"b": "2", "a": "1", "__name__": "cores"}, "a=1,b=2"),
        ([], {}, "source"),
    ],
)
def test_a_series_id_is_never_blank(chosen: list[str], labels: dict[str, str], told: str) -> None:
    assert series_id_of(chosen, labels, hidden="__name__", otherwise="source") == told
