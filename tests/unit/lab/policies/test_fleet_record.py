"""What is remembered of a fleet."""

import numpy as np
import pytest

from lab.game import Game
from lab.policies.fleet_record import FleetRecord
from tests.unit.lab.cases import case_of, document, fleet, offer, pool


def record(*offers: dict[str, object]) -> FleetRecord:
    pools = [
        pool("a", "gold", [1], at="app"), pool("b", "bronze", [1]), pool("c", "gold", [1]), pool("d", "gold", [1]),
    ]  # fmt: skip
    case = case_of(document(pools, list(offers) or [offer("A", "on_demand")], [fleet("app"), fleet("web")]))
    return FleetRecord.of(Game(case).init(), "web", 0.05)


def test_it_holds_its_own_pools_and_the_offers_that_serve_it() -> None:
    made = record(offer("A", "on_demand"), offer("B", "on_demand", shards_per_unit={"app": 2}))
    assert (made.rows.tolist(), made.risks, list(made.sold)) == ([1, 2, 3], ("bronze", "gold", "gold"), ["A"])
    assert made.size("A") == 2
    assert made.on_demand_price() == pytest.approx(0.05)


def test_demand_is_kept_by_class_beside_every_ways_forecast() -> None:
    made = record()
    made.samples = [np.array([[1.0, 2.0]]), np.array([[0.0, 5.0]])]
    made.remember(np.array([100.0, 1.0, 2.0, 3.0]), ["gold", "silver", "bronze"])
    assert [each.tolist() for each in made.demand] == [[5.0, 0.0, 1.0]]
    assert [[each.tolist() for each in way] for way in made.forecasts] == [[[1.0, 2.0]], [[0.0, 5.0]]]


def test_units_are_young_until_they_were_held_for_their_minimum() -> None:
    made = record(offer("A", "on_demand", min_steps=3), offer("B", "on_demand"))
    for units in ({"A": 5, "B": 9}, {"A": 1}, {"A": 2}):
        made.see_delivered(units)
    assert made.young({"A": 8, "B": 9}) == {"A": 3}, "of the two newest steps"
    assert made.young({"A": 1}) == {"A": 1}, "the rest was taken back"
    made.see_delivered({})
    made.see_delivered({})
    assert made.young({"A": 8}) == {}


def test_without_on_demand_the_listed_price_counts() -> None:
    spot = offer("B", "spot", prices=[[-1, "0.03"]], available=[[0, 1]], on_demand_price="0.30")
    assert record(spot).on_demand_price() == pytest.approx(0.15)
