"""Laws of a corrected rate of reclaim: between what is published and what was seen, whatever the unit of time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.market.reclaim_rate import BAND_HOURS, corrected, hourly_rate, monthly_share, published, shrunk_rate
from engine.market.scoring import lost_in_a_month
from engine.model.market import Offer, OwnHistory, PurchaseOption, Reliability
from tests.unit.engine.market.counterparties import an_offer

NOTHING = OwnHistory(reclaims=0, node_hours=0.0)


def spot(share: float | None = 0.1) -> Offer:
    reliability = Reliability(correlation_group="g", interruption_per_month=share)
    return an_offer(option=PurchaseOption.SPOT, reliability=reliability)


def share_of(offer: Offer, *, group: OwnHistory, own: OwnHistory) -> float:
    found = corrected(offer, group, own).interruption_per_month
    assert found is not None
    return found


def history(reclaims: int, hours: float) -> OwnHistory:
    return OwnHistory(reclaims=reclaims, node_hours=hours)


@given(st.integers(0, 50), st.floats(0, 1e5), st.floats(1e-6, 1), st.floats(0.1, 1e5), st.floats(0.01, 100))
def test_a_shrunk_rate_lies_between_and_scales(
    lost: int, exposure: float, prior: float, weight: float, scale: float
) -> None:
    rate = shrunk_rate(lost, exposure, prior, weight)
    seen = lost / exposure if exposure > 0 else float("inf") if lost else prior
    assert min(seen, prior) * (1 - 1e-9) <= rate <= max(seen, prior) * (1 + 1e-9)
    assert shrunk_rate(lost, exposure * scale, prior / scale, weight * scale) == pytest.approx(rate / scale)


@given(st.floats(0, 0.99))
def test_shares_of_a_month_and_hourly_rates_are_one(share: float) -> None:
    assert monthly_share(hourly_rate(share)) == pytest.approx(share, abs=1e-12)


@given(st.integers(0, 20), st.floats(0, 1e5), st.floats(0, 0.9))
def test_more_reclaims_never_make_it_safer_and_more_hours_never_riskier(
    reclaims: int, hours: float, share: float
) -> None:
    seen = history(reclaims, hours)
    base = share_of(spot(share), group=seen, own=seen)
    worse, longer = history(reclaims + 1, hours), history(reclaims, hours + 100)
    assert share_of(spot(share), group=worse, own=worse) > base
    assert share_of(spot(share), group=longer, own=longer) <= base
    assert 0 <= base <= 1


def test_where_nothing_was_seen_the_published_share_stands() -> None:
    assert share_of(spot(0.1), group=NOTHING, own=NOTHING) == pytest.approx(0.1)
    assert share_of(spot(None), group=NOTHING, own=NOTHING) == pytest.approx(lost_in_a_month(spot(None)))


def test_where_much_was_seen_it_stands_itself() -> None:
    seen = history(round(0.001 * 100 * BAND_HOURS), 100 * BAND_HOURS)
    assert hourly_rate(share_of(spot(0.1), group=seen, own=seen)) == pytest.approx(0.001, rel=0.03)


def test_the_first_reclaim_of_a_place_that_promised_fifteen_in_a_hundred() -> None:
    seen = history(1, 0)
    assert share_of(spot(0.15), group=seen, own=seen) == pytest.approx(0.39, abs=0.005)


def test_a_place_learns_from_what_is_lost_together_with_it() -> None:
    bad = history(5, 1000)
    beside = share_of(spot(0.1), group=bad, own=NOTHING)
    assert 0.1 < beside < share_of(spot(0.1), group=bad, own=bad)


def test_correcting_again_starts_from_what_is_published() -> None:
    once = spot(0.1).model_copy(update={"reliability": corrected(spot(0.1), history(1, 10), history(1, 10))})
    assert once.reliability.published_per_month == 0.1
    assert once.reliability.own == history(1, 10)
    assert corrected(once, history(1, 10), history(1, 10)) == once.reliability
    assert published(once) == spot(0.1).reliability == published(spot(0.1))
