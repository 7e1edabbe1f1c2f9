"""The clairvoyant bound: known values, and no play below it."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import ShardwrightError
from lab.bound import bound_of_path, clairvoyant_bound
from lab.host import play
from lab.regret import regret_of
from tests.unit.lab.cases import Scripted, case_of, document, offer, pool, tiny
from tests.unit.lab.test_game import WORKED


def test_the_worked_example_has_the_bounds_of_the_rules() -> None:
    case = case_of(tiny())
    assert clairvoyant_bound(case, shortfall=0).cost == Decimal("0.71")
    assert clairvoyant_bound(case).cost == Decimal("0.697")


def test_a_commitment_is_taken_only_where_its_whole_term_pays() -> None:
    offers = [offer("A", "on_demand", price="0.10"), offer("C", "commitment", price="0.06", term=4)]
    short = document([pool("a", "gold", [2, 2])], offers)
    assert clairvoyant_bound(case_of(short), shortfall=0).cost == Decimal("0.2")
    long = document([pool("a", "gold", [2, 2, 2])], offers)
    assert clairvoyant_bound(case_of(long), shortfall=0).cost == Decimal("0.24")


def test_leaving_a_cell_is_paid_for_where_nothing_avoids_it() -> None:
    first = offer("B", "spot", "gcp/y", prices=[[0, "0.01"]], available=[[0, 2], [1, 0]])
    then = offer("D", "spot", "aws/x", prices=[[0, "0.01"]], available=[[0, 0], [1, 2]])
    data = document([pool("a", "gold", [4, 4])], [offer("A", "on_demand", price="9"), first, then])
    assert clairvoyant_bound(case_of(data), shortfall=0).cost == Decimal("0.24")


def test_a_fleet_that_nothing_can_serve_is_told() -> None:
    few = offer("B", "spot", prices=[[0, "0.01"]], available=[[0, 1]])
    with pytest.raises(ShardwrightError, match="bound"):
        clairvoyant_bound(case_of(document([pool("a", "gold", [9])], [few])))


STEPS = 5
demands = st.lists(st.integers(0, 9), min_size=STEPS, max_size=STEPS)
prices = st.integers(1, 20).map(lambda cents: f"0.{cents:02d}")
per_step = st.lists(st.integers(0, 4), min_size=STEPS, max_size=STEPS)


@st.composite
def games(draw: st.DrawFn) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    spot_prices = draw(st.lists(prices, min_size=STEPS, max_size=STEPS))
    offers = [
        offer("A", "on_demand", price=draw(prices)),
        offer("D", "on_demand", "gcp/y", price=draw(prices), shards_per_unit={"web": 3}),
        offer(
            "B",
            "spot",
            "gcp/y",
            prices=[[at, price] for at, price in enumerate(spot_prices)],
            available=[[at, depth] for at, depth in enumerate(draw(per_step))],
        ),
        offer("C", "commitment", price=draw(prices), term=draw(st.integers(1, 7))),
    ]
    pools = [pool("g", "gold", draw(demands)), pool("b", "bronze", draw(demands))]
    units = st.integers(0, 5)
    orders = [
        {
            "targets": {"web": {"A": draw(units), "D": draw(units), "B": draw(units)}},
            "fallback": {"web": ["D"]} if draw(st.booleans()) else {},
            "commit": [{"fleet": "web", "offer": "C", "units": draw(st.integers(0, 1))}],
        }
        for _ in range(STEPS)
    ]
    return document(pools, offers), orders


@settings(max_examples=60, deadline=None)
@given(games())
def test_no_play_is_below_the_bound_of_its_limits_and_of_its_path(
    game: tuple[dict[str, Any], list[dict[str, Any]]],
) -> None:
    data, orders = game
    case = case_of(data)
    result = play(case, Scripted(*orders))
    assert bound_of_path(case, result.bought, result.load).cost <= result.cost
    if result.keeps_risk:
        assert clairvoyant_bound(case).cost <= result.cost


def test_regret_is_split_without_rest() -> None:
    case = case_of(tiny())
    result, bound = play(case, Scripted(*WORKED)), clairvoyant_bound(case)
    regret = regret_of(case, result, bound)
    assert regret.total == regret.sizing + regret.market == result.cost - Decimal("0.697")
    assert regret.market > 0
