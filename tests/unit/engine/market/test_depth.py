"""Laws of a believed depth: a denial never raises it, a grant never lowers it, and in time it is what is advertised."""

from datetime import timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.market.depth import HALF_LIFE, MEMORY, STANDS, UNTOLD_UNITS, believed_depth, drifted, free_units
from engine.market.observations import Answer, AnswerKind
from engine.model.ids import CellId
from engine.model.market import DepthBelief, Place, PurchaseOption
from tests.unit.engine.market.counterparties import NOW

PLACE = Place(CellId("p/a/r"), "z", "t.small", PurchaseOption.SPOT)
MINUTES = int(MEMORY / timedelta(minutes=1))


def answer(
    minutes_ago: float, *, held: int = 0, denied: int = 0, asked: int | None = None, kind: AnswerKind = AnswerKind.HOLD
) -> Answer:
    return Answer(
        event=f"{kind.value}:{minutes_ago}", place=PLACE, kind=kind, at=NOW - timedelta(minutes=minutes_ago),
        asked=denied + held if asked is None else asked, denied=denied, held=held,
    )  # fmt: skip


def units(answers: list[Answer], *, advertised: int | None = 40, ours: int = 0, after: timedelta = timedelta(0)) -> int:
    """Where nothing limits it, as much as is advertised."""
    belief = believed_depth(answers, advertised=advertised, ours=ours, now=NOW + after)
    if belief is None:
        return ours + (10**9 if advertised is None else advertised)
    return belief.depth


@st.composite
def stories(draw: st.DrawFn) -> list[Answer]:
    times = draw(st.lists(st.integers(1, MINUTES - 1), max_size=6, unique=True))
    return [
        answer(
            minutes,
            held=draw(st.integers(0, 12)),
            denied=draw(st.integers(0, 12)),
            kind=draw(st.sampled_from([AnswerKind.HOLD, AnswerKind.CREATE, AnswerKind.RECLAIM, AnswerKind.QUOTE])),
        )
        for minutes in times
    ]


advertised = st.one_of(st.none(), st.integers(1, 60))


@given(stories(), advertised, st.integers(0, 12), st.integers(0, 5))
def test_never_less_than_nothing_and_never_more_than_is_advertised(
    story: list[Answer], on_offer: int | None, ours: int, hours: int
) -> None:
    belief = believed_depth(story, advertised=on_offer, ours=ours, now=NOW + timedelta(hours=hours))
    if belief is None:
        assert not any(one.limits and one.at > NOW + timedelta(hours=hours) - MEMORY for one in story)
        return
    assert free_units(belief) >= 0
    assert on_offer is None or free_units(belief) <= on_offer


@example([answer(1, held=2)], 0, 1, 1, 0)
@given(stories(), st.integers(0, 5), st.integers(1, 12), advertised, st.integers(0, 20))
def test_to_be_denied_where_it_was_granted_never_raises_it(
    story: list[Answer], which: int, denied: int, on_offer: int | None, hours: int
) -> None:
    """The same answers, but that at one of them more was asked for and denied."""
    if not story:
        return
    one = story[which % len(story)]
    more = one.model_copy(update={"denied": one.denied + denied, "kind": AnswerKind.HOLD})
    one = one.model_copy(update={"kind": AnswerKind.HOLD})
    others = [each for each in story if each.event != one.event]
    later = timedelta(hours=hours)
    assert units([*others, more], advertised=on_offer, after=later) <= units(
        [*others, one], advertised=on_offer, after=later
    )


@given(stories(), st.integers(1, 12), advertised, st.integers(0, 20))
def test_a_denial_that_grants_no_more_than_is_believed_never_raises_it(
    story: list[Answer], denied: int, on_offer: int | None, hours: int
) -> None:
    before = believed_depth(story, advertised=on_offer, ours=0, now=NOW)
    held = min(5, 5 if before is None else max(0, before.depth - 1))
    now_denied = answer(0, held=held, denied=denied)
    later = timedelta(hours=hours)
    assert units([*story, now_denied], advertised=on_offer, after=later) <= units(
        story, advertised=on_offer, after=later
    )


@given(stories(), st.integers(1, 40), advertised)
def test_a_quote_that_is_denied_never_raises_it(story: list[Answer], asked: int, on_offer: int | None) -> None:
    denied = answer(0, asked=asked, denied=asked, kind=AnswerKind.QUOTE)
    if on_offer is None or asked <= on_offer:
        assert units([*story, denied], advertised=on_offer) <= units(story, advertised=on_offer)


@given(stories(), st.integers(0, 12), advertised)
def test_a_grant_never_lowers_it(story: list[Answer], held: int, on_offer: int | None) -> None:
    assert units([*story, answer(0, held=held)], advertised=on_offer) >= units(story, advertised=on_offer)


@given(held=st.integers(0, 10), on_offer=st.integers(10, 60), minutes=st.integers(0, MINUTES))
def test_it_comes_back_to_what_is_advertised(held: int, on_offer: int, minutes: int) -> None:
    told = [answer(0, held=held, denied=1)]
    span = timedelta(minutes=minutes)
    sooner = units(told, advertised=on_offer, after=span)
    assert sooner <= units(told, advertised=on_offer, after=span + timedelta(minutes=30)) <= on_offer
    assert units(told, advertised=on_offer, after=STANDS) == held
    halfway = units(told, advertised=on_offer, after=STANDS + HALF_LIFE)
    assert halfway == pytest.approx((held + on_offer) / 2, abs=0.5)
    assert believed_depth(told, advertised=on_offer, ours=0, now=NOW + MEMORY) is None


@given(st.integers(0, 500), st.integers(0, 500), st.floats(0, 30), st.floats(0.1, 100))
def test_what_drifts_scales_and_lies_between(told: int, usual: int, age: float, scale: float) -> None:
    value = drifted(told, usual, age, 6)
    assert min(told, usual) - 1e-9 <= value <= max(told, usual) + 1e-9
    assert drifted(told * scale, usual * scale, age, 6) == pytest.approx(value * scale)
    assert drifted(told, usual, age * scale, 6 * scale) == pytest.approx(value)


def test_where_nothing_is_advertised_it_comes_back_to_a_guess_and_is_then_forgotten() -> None:
    told = [answer(0, denied=1)]
    assert units(told, advertised=None, after=MEMORY - timedelta(minutes=1)) == UNTOLD_UNITS
    assert believed_depth(told, advertised=None, ours=0, now=NOW + MEMORY) is None


def test_ours_are_part_of_the_depth_and_no_longer_free() -> None:
    belief = believed_depth([answer(0, held=3, denied=2)], advertised=40, ours=2, now=NOW)
    assert belief is not None
    assert (belief.depth, free_units(belief)) == (3, 1)
    assert str(belief) == "denied 2 of 5 at 12:00; believed depth 3, 2 of it ours"


def test_a_grant_in_between_raises_it_and_what_was_denied_still_stands() -> None:
    story = [answer(20, held=1, denied=2), answer(10, held=3)]
    assert units(story) == 3
    assert units(story, after=timedelta(minutes=9)) == 3, "half an hour from the denial is not over"


def test_a_reclaim_tells_the_depth() -> None:
    belief = believed_depth([answer(0, held=1, kind=AnswerKind.RECLAIM)], advertised=9, ours=1, now=NOW)
    assert belief == DepthBelief(depth=1, ours=1, advertised=9, told="taken back at 12:00")


def test_of_what_was_denied_at_once_half_is_tried_next() -> None:
    left = [7]
    while left[-1]:
        story = [answer(1, asked=left[-1], denied=left[-1], kind=AnswerKind.QUOTE)]
        left.append(units(story))
    assert left == [7, 3, 1, 0]
