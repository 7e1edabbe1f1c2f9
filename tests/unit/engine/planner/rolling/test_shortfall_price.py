"""The price of a missing shard: the cheapest that would have kept what is promised, by looking back."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.planner.rolling.shortfall_price import LADDER, Allowance, PastFleet, Priced, price_shortfall
from engine.planner.rolling.sizing import Array, capacities, supply_curve
from tests.unit.engine.planner.rolling.offers import on_demand, spot

MOMENTS = 120
CURVE = supply_curve([spot(price=0.3, free=12), on_demand(price=1.0)], [0, 0], 0.0)


def past(seed: int = 1, *, noise: float = 3.0, classes: int = 2, ways: tuple[float, ...] = (1.0,)) -> PastFleet:
    """Demand around 10 a class, forecast by samples of its true spread times each of ``ways``; the largest sample
    covers whatever came."""
    rng = np.random.default_rng(seed)
    demand = np.maximum(rng.normal(10, noise, (MOMENTS, classes)), 0).round()
    total, spread = demand.sum(axis=1), noise * np.sqrt(classes)

    def forecasts(width: float) -> Array:
        drawn = rng.normal(10 * classes, spread * width, (MOMENTS, 100))
        drawn[:, -1] = total.max() + 1
        return np.sort(np.maximum(drawn, 0), axis=1)

    return PastFleet(tuple(forecasts(width) for width in ways), demand, np.zeros(0), CURVE, 1.0)


def allowance(overall: float = 0.02, limits: tuple[float, ...] = (0.01, 0.05), **more: object) -> Allowance:
    fresh = {"demanded": (0.0,) * len(limits), "short": (0.0,) * len(limits), "steps": 300, "steps_left": 300}
    return Allowance(overall, limits, **{**fresh, **more})  # type: ignore[arg-type]


def priced(fleets: list[PastFleet], kept: Allowance, expected: float = 0.0) -> Priced:
    return price_shortfall(fleets, kept, expected_so_far=expected)


def replayed(fleet: PastFleet, price: float, way: int = 0) -> tuple[float, Array]:
    """(cost a step, shards short a step by class) of sizing at a price over the past: the plain sum."""
    capacity = capacities(fleet.forecasts[way], [price], fleet.curve)[0]
    short = np.zeros(fleet.demand.shape)
    for moment, demand in enumerate(fleet.demand):
        left = capacity[moment]
        for each, wanted in enumerate(demand):
            short[moment, each] = max(wanted - left, 0)
            left -= wanted - short[moment, each]
    return float(fleet.curve.cost(capacity).mean()), short.mean(axis=0)


limits = st.floats(0.002, 0.1)


@given(st.integers(0, 30), limits, limits, limits)
@settings(max_examples=40, deadline=None)
def test_every_class_keeps_its_allowance_over_the_look_back(
    seed: int, overall: float, gold: float, bronze: float
) -> None:
    """The dearest price leaves nothing short here, so that some price always fits."""
    fleet = past(seed)
    found = priced([fleet], allowance(overall, (gold, bronze)))
    _, short = replayed(fleet, found.prices[0])
    rates = fleet.demand.mean(axis=0)
    assert (short <= np.array([gold, bronze]) * rates).all()
    assert short.sum() <= overall * rates.sum()
    assert found.expected == pytest.approx(short.sum())


@given(st.integers(0, 30), limits, st.floats(1.0, 10.0))
@settings(max_examples=40, deadline=None)
def test_a_looser_promise_is_never_dearer(seed: int, limit: float, looser: float) -> None:
    fleet = past(seed)
    tight, loose = (
        replayed(fleet, priced([fleet], allowance(each, (each, each))).prices[0])[0] for each in (limit, limit * looser)
    )
    assert loose <= tight + 1e-9


def test_the_price_stands_on_the_ladder_of_the_fleets_own_on_demand_price() -> None:
    dear = replace(past(), on_demand_price=7.0)
    assert priced([dear], allowance()).prices[0] / 7.0 in LADDER


@given(st.integers(0, 30), st.floats(0, 60))
@settings(max_examples=40, deadline=None)
def test_bad_luck_so_far_raises_the_price(seed: int, short: float) -> None:
    fleet = past(seed)
    played = {"demanded": (1500.0, 1500.0), "steps_left": 150}
    lucky = priced([fleet], allowance(**played, short=(0.0, 0.0)), expected=10.0)
    unlucky = priced([fleet], allowance(**played, short=(0.0, short)), expected=10.0)
    assert unlucky.prices[0] >= lucky.prices[0]


def test_where_nothing_is_left_the_least_shortfall_is_taken() -> None:
    """Twice the allowance is short already: what is left is played as safely as the ladder goes."""
    spent = allowance(demanded=(1500.0, 1500.0), short=(60.0, 300.0), steps_left=150)
    found = priced([past()], spent, expected=1.0)
    assert replayed(past(), found.prices[0])[1].sum() == 0


def test_the_sharper_way_of_forecasting_is_taken() -> None:
    fleet = past(ways=(4.0, 1.0))
    found = priced([fleet], allowance())
    assert found.ways == (1,)
    assert priced([replace(fleet, forecasts=fleet.forecasts[::-1])], allowance()).ways == (0,)


def test_the_fleet_that_saves_most_by_it_goes_short() -> None:
    """One fleet buys on demand at 10, the other finds spot at 0.3: what may be short is kept for the dear one."""
    cheap = replace(past(1), curve=supply_curve([spot(price=0.3, free=1000)], [0], 0.0))
    dear = replace(past(2), curve=supply_curve([on_demand(price=10.0)], [0], 0.0))
    found = priced([cheap, dear], allowance())
    shorts = [replayed(each, price)[1].sum() for each, price in zip((cheap, dear), found.prices, strict=True)]
    assert shorts[0] < shorts[1]


def test_what_was_reclaimed_lately_is_provided_for() -> None:
    plain = past()
    robbed = replace(plain, lost=np.tile([0.0, 0.0, 0.0, 0.2], 30))
    assert priced([robbed], allowance()).prices[0] > priced([plain], allowance()).prices[0]


def test_towards_the_end_what_was_kept_back_is_freed() -> None:
    fleet, used = past(), {"demanded": (2900.0, 2900.0), "short": (0.0, 0.0)}
    early = priced([fleet], allowance(), expected=0.0)
    late = priced([fleet], allowance(**used, steps_left=10), expected=30.0)
    assert late.prices[0] < early.prices[0]


def test_no_demand_at_all_has_a_price_too() -> None:
    none = replace(past(), demand=np.zeros((MOMENTS, 2)), forecasts=(np.zeros((MOMENTS, 5)),))
    assert priced([none], allowance()).expected == 0.0


@pytest.mark.parametrize("count", [5, 12, 40])
def test_many_fleets_are_priced_together(count: int) -> None:
    fleets = [past(seed, ways=(1.0, 2.0)) for seed in range(count)]
    found = priced(fleets, allowance())
    short = np.sum([replayed(f, p, way)[1] for f, p, way in zip(fleets, found.prices, found.ways, strict=True)], axis=0)
    rates = np.sum([fleet.demand.mean(axis=0) for fleet in fleets], axis=0)
    assert (short <= np.array([0.01, 0.05]) * rates).all()
    assert short.sum() <= 0.02 * rates.sum()
    assert short.sum() > 0, "the allowance is there to be used"
