"""What is believed of spot: told by denials, raised by grants, forgotten slowly."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.planner.rolling.supply import FORGET_STEPS, FRESH_STEPS, UNKNOWN_SHARDS, SpotEvents, SupplyBelief


def belief(*offers: str, size: int = 2, step_hours: float = 1.0) -> SupplyBelief:
    return SupplyBelief(step_hours, dict.fromkeys(offers or ("a",), size))


def granted(units: int) -> SpotEvents:
    return SpotEvents(held=units, denied=0, reclaimed=0)


@given(held=st.integers(0, 50), denied=st.integers(1, 50))
def test_a_denial_tells_the_depth(held: int, denied: int) -> None:
    known = belief()
    known.observe(3, {"a": SpotEvents(held, denied, 0)})
    assert known.free_units("a", 3, 2) == 0
    assert known.fresh("a", 3)
    known.observe(4, {"a": granted(0)})
    assert known.free_units("a", 4, 2) == pytest.approx(held)


@given(held=st.integers(0, 50), reclaimed=st.integers(1, 50))
def test_a_reclaim_tells_the_depth(held: int, reclaimed: int) -> None:
    known = belief()
    known.observe(3, {"a": SpotEvents(held, 0, reclaimed)})
    assert known.free_units("a", 3, 2) == 0


@given(depth=st.integers(0, 20), more=st.integers(1, 20))
def test_a_grant_beyond_the_belief_raises_it(depth: int, more: int) -> None:
    known = belief()
    known.observe(0, {"a": SpotEvents(depth, 1, 0)})
    known.observe(1, {"a": granted(depth + more)})
    known.observe(1, {"a": granted(0)})
    assert known.free_units("a", 1, 2) > depth
    assert not known.fresh("a", 1), "how much more there is was not told"


@given(depth=st.integers(1, 20), held=st.integers(0, 20))
def test_a_grant_within_the_belief_leaves_it(depth: int, held: int) -> None:
    known = belief()
    known.observe(0, {"a": SpotEvents(depth, 1, 0)})
    known.observe(1, {"a": granted(min(held, depth))})
    assert known.free_units("a", 1, 2) == pytest.approx(depth - min(held, depth))


def test_what_was_never_asked_for_is_guessed_in_shards() -> None:
    known = belief("a", "b")
    assert known.free_units("a", 0, 2) == UNKNOWN_SHARDS / 2
    assert known.free_units("b", 0, 8) == UNKNOWN_SHARDS / 8
    assert not known.fresh("a", 0)


def test_the_guess_is_the_median_of_what_others_turned_out_to_be() -> None:
    known = belief("a", "b", "c", "d", "new", size=2)
    known.observe(0, {name: SpotEvents(units, 1, 0) for name, units in (("a", 1), ("b", 3), ("c", 5), ("d", 40))})
    assert known.free_units("new", 0, 1) == 2 * 4


def test_a_belief_is_fresh_for_a_while_and_drifts_to_the_offers_average() -> None:
    known = belief()
    for step, depth in ((0, 10), (1, 10), (2, 4)):
        known.observe(step, {"a": SpotEvents(depth, 1, 0)})
    known.observe(3, {"a": granted(0)})
    assert known.fresh("a", 2 + FRESH_STEPS)
    assert not known.fresh("a", 3 + FRESH_STEPS)
    over_time = [known.free_units("a", step, 2) for step in (3, 10, 30, 2 + 20 * int(FORGET_STEPS))]
    assert over_time == sorted(over_time)
    assert over_time[0] < 5
    assert over_time[-1] == pytest.approx(8)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3), st.integers(0, 3)), max_size=30))
def test_what_is_free_is_never_negative(story: list[tuple[int, int, int]]) -> None:
    known = belief()
    for step, events in enumerate(story):
        known.observe(step, {"a": SpotEvents(*events)})
        assert known.free_units("a", step, 2) >= 0


def test_before_anything_was_seen_every_offer_has_the_prior_rate() -> None:
    known = belief("a", "b")
    assert known.reclaim_rate("web", "a") == known.reclaim_rate("app", "b") == pytest.approx(0.01)
    assert belief(step_hours=0.5).reclaim_rate("web", "a") == pytest.approx(0.005)


def test_an_offers_rate_shrinks_to_its_fleets() -> None:
    """Little was seen of b, much of a: b counts as the fleet does, a as itself."""
    known = belief("a", "b", "c")
    for _ in range(1000):
        known.exposed("web", "a", held=9, reclaimed=1)
    known.exposed("web", "b", held=1, reclaimed=0)
    whole = known.reclaim_rate("web", "c")
    assert whole == pytest.approx(0.1, rel=0.02)
    assert known.reclaim_rate("web", "a") == pytest.approx(0.1, rel=0.02)
    assert known.reclaim_rate("web", "b") == pytest.approx(whole, rel=0.02)
    for _ in range(2000):
        known.exposed("web", "b", held=10, reclaimed=0)
    assert known.reclaim_rate("web", "b") < 0.01 < known.reclaim_rate("web", "a")


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 5)), max_size=40))
def test_a_rate_lies_between_what_was_seen_and_the_prior(story: list[tuple[int, int]]) -> None:
    known = belief()
    for held, gone in story:
        known.exposed("web", "a", held=held, reclaimed=gone)
    gone_in_all, shards = sum(gone for _, gone in story), sum(held + gone for held, gone in story)
    seen = gone_in_all / shards if shards else 0.01
    assert min(seen, 0.01) - 1e-12 <= known.reclaim_rate("web", "a") <= max(seen, 0.01) + 1e-12
