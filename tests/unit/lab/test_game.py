"""The rules, one by one; the worked example to the last digit."""

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest

from lab.game import Game
from lab.host import play
from lab.tally import Charged, Result
from lab.wire import Missed, Observe
from tests.unit.lab.cases import Scripted, case_of, document, fleet, offer, pool, tiny

WORKED = (
    {
        "targets": {"web": {"A": 1, "B": 2}},
        "fallback": {"web": ["A"]},
        "commit": [{"fleet": "web", "offer": "C", "units": 1}],
    },
    {"targets": {"web": {"A": 1, "B": 2}}},
    {"targets": {"web": {"A": -1}}},
    {"targets": {"web": {"A": 2, "B": 1}}},
)


def lines_by_step(game: Game) -> list[Decimal]:
    sums = [0] * game.board.steps
    for line in game.tally.lines:
        sums[line.step] += line.nano
    return [Decimal(nano).scaleb(-9) for nano in sums]


def run(data: Mapping[str, Any], *answers: Any) -> tuple[Game, list[Observe]]:
    """Play to the end; also what was seen after each step, the last included."""
    game, policy = Game(case_of(data)), Scripted(*answers)
    while not game.over:
        game.step(policy.answer(game.observe()))
    return game, [*policy.seen[1:], game.observe()]


def test_the_worked_example_to_the_last_digit() -> None:
    game, seen = run(tiny(), *WORKED)
    assert lines_by_step(game) == [Decimal("0.29"), Decimal("0.34"), Decimal("0.20"), Decimal("0.23")]
    assert [dict(each.held["web"]) for each in seen] == [
        {"A": 2, "B": 1},
        {"A": 1, "B": 2},
        {"A": 1, "B": 1},
        {"A": 2, "B": 1},
    ]
    assert [each.covered for each in seen] == [{"a": 3, "b": 3}, {"a": 4, "b": 4}, {"a": 3, "b": 3}, {"a": 3, "b": 2}]
    assert [each.attached["web"] for each in seen[:2]] == [{"aws/x": 6}, {"aws/x": 4, "gcp/y": 4}]
    assert seen[0].denied == {"web": {"B": 1}}
    assert seen[2].reclaimed == {"web": {"B": 1}}
    assert [each.cost for each in seen] == [Decimal(x) for x in ("0.29", "0.63", "0.83", "1.06")]


def test_the_worked_example_in_its_result() -> None:
    result = play(case_of(tiny()), Scripted(*WORKED))
    assert result.cost == Decimal("1.06")
    assert result.shortfall_rate == 1 / 26
    assert result.shortfall_by_class == {"gold": 0.0, "silver": 0.0, "bronze": 1 / 13}
    assert result.shortfall_by_pool == {"a": 0.0, "b": 1 / 13}
    assert (result.preemptions, result.denied, result.moves, result.malformed, result.late) == (1, 1, 2, 1, 0)
    assert not result.keeps_risk
    assert result.cost_by_kind == {
        "on_demand": Decimal("0.60"),
        "spot": Decimal("0.18"),
        "commitment": Decimal("0.18"),
        "move": Decimal("0.10"),
    }
    assert sum(amount for *_, amount in result.cost_lines) == result.cost
    assert result.bought == ((8, 8, 6, 6),)


def test_nothing_hidden_reaches_a_policy() -> None:
    data = tiny()
    policy = Scripted({"targets": {}})
    play(case_of(data), policy)
    assert policy.init is not None
    text = policy.init.line() + "".join(each.line() for each in policy.seen)
    assert "available" not in text
    assert '"prices":[' not in text
    assert json.loads(policy.init.line())["offers"][1]["price_history"] == [[-4, "0.03"]]
    assert "demand" not in policy.init.line().replace("on_demand", "")
    assert policy.seen[0].demand == {}
    assert policy.seen[0].prices == {"B": Decimal("0.03")}


def test_what_is_pending_longer_than_a_step_is_shown_and_cancelled_first() -> None:
    data = document([pool("a", "gold", [0, 0, 0, 0])], [offer("A", "on_demand", lead=2)])
    _, seen = run(
        data,
        {"targets": {"web": {"A": 1}}},
        {"targets": {"web": {"A": 3}}},
        {"targets": {"web": {"A": 2}}},
        {"targets": {"web": {"A": 2}}},
    )
    assert [each.held["web"] for each in seen] == [{"A": 1}, {"A": 1}, {"A": 2}, {"A": 2}]
    assert [each.pending["web"] for each in seen] == [{}, {"A": 2}, {}, {}]


def test_the_first_answer_arrives_at_step_0_whatever_the_lead() -> None:
    data = document([pool("a", "gold", [2, 2])], [offer("A", "on_demand", lead=2)])
    _, seen = run(data, {"targets": {"web": {"A": 1}}})
    assert seen[0].held["web"] == {"A": 1}


def test_giving_back_early_is_charged_to_the_minimum() -> None:
    data = document([pool("a", "gold", [1, 1, 1])], [offer("A", "on_demand", min_steps=3)])
    game, _ = run(data, {"targets": {"web": {"A": 2}}}, {"targets": {"web": {"A": 1}}}, {"targets": {"web": {"A": 1}}})
    minimum = [line for line in game.tally.lines if line.kind is Charged.MINIMUM]
    assert [(line.step, line.units, line.nano) for line in minimum] == [(0, 2, 200_000_000)]


def spot(depth: int, **more: Any) -> dict[str, Any]:
    return offer("B", "spot", "gcp/y", prices=[[-1, "0.03"], [1, "0.05"]], available=[[0, depth]], **more)


def test_arrivals_are_granted_in_the_order_of_fleets_and_reclaimed_from_the_last() -> None:
    offers = [
        offer("A", "on_demand", shards_per_unit={"web": 2, "app": 2}),
        offer(
            "B",
            "spot",
            prices=[[0, "0.03"]],
            available=[[0, 3], [1, 2], [2, 5], [3, 3]],
            shards_per_unit={"web": 2, "app": 2},
        ),
    ]
    pools = [pool("a", "gold", [2, 2, 2, 2]), pool("b", "gold", [2, 2, 2, 2], at="app")]
    data = document(pools, offers, [fleet("web"), fleet("app")])
    _, seen = run(data, {"targets": {"web": {"B": 2}, "app": {"B": 2}}})
    held = [(each.held["web"].get("B", 0), each.held["app"].get("B", 0)) for each in seen]
    # Step 2 grants both again what they lack; at step 3 the youngest unit, app's, goes.
    assert held == [(2, 1), (2, 0), (2, 2), (2, 1)]
    assert seen[1].reclaimed == {"web": {}, "app": {"B": 1}}
    assert seen[1].denied == {"web": {}, "app": {"B": 1}}


def test_above_the_bid_the_depth_is_zero_for_everybody_and_the_price_is_paid() -> None:
    data = document([pool("a", "gold", [2, 2, 2])], [offer("A", "on_demand"), spot(9)])
    game, seen = run(data, {"targets": {"web": {"B": 1}}, "bids": {"B": "0.04"}})
    assert [each.held["web"] for each in seen] == [{"B": 1}, {}, {}]
    assert lines_by_step(game) == [Decimal("0.03"), 0, 0]


def test_fallback_buys_denied_shards_down_the_list_rounded_up() -> None:
    offers = [
        offer("A", "on_demand", shards_per_unit={"web": 4}),
        spot(0),
        offer("D", "spot", prices=[[0, "0.02"]], available=[[0, 1]]),
    ]
    data = document([pool("a", "gold", [6, 6])], offers)
    _, seen = run(data, {"targets": {"web": {"B": 4}}, "fallback": {"web": ["D", "A"]}})
    assert seen[0].held["web"] == {"D": 1, "A": 2}
    assert seen[0].denied["web"] == {"B": 4}


def test_reclaimed_units_are_not_replaced_by_fallback() -> None:
    shrinking = offer("B", "spot", prices=[[0, "0.03"]], available=[[0, 2], [1, 0]])
    data = document([pool("a", "gold", [4, 4])], [offer("A", "on_demand"), shrinking])
    _, seen = run(data, {"targets": {"web": {"B": 2}}, "fallback": {"web": ["A"]}}, Missed.LATE)
    assert seen[1].reclaimed["web"] == {"B": 2}
    assert seen[1].held["web"] == {}


def test_a_commitment_is_charged_for_its_whole_term() -> None:
    data = document([pool("a", "gold", [2, 2])], [offer("C", "commitment", price="0.06", term=5)])
    buy = {"targets": {}, "commit": [{"fleet": "web", "offer": "C", "units": 2}]}
    game, seen = run(data, buy, {"targets": {}})
    assert seen[0].commitments[0].model_dump(by_alias=True) == {
        "fleet": "web",
        "offer": "C",
        "units": 2,
        "from": 0,
        "until": 5,
    }
    kinds = [(line.kind.value, line.nano) for line in game.tally.lines]
    assert kinds == [("commitment", 120_000_000)] * 2 + [("term_after_end", 360_000_000)]


def test_the_better_class_is_served_first() -> None:
    pools = [pool("b", "bronze", [3]), pool("g", "gold", [3]), pool("s", "silver", [3])]
    _, seen = run(document(pools, [offer("A", "on_demand")]), {"targets": {"web": {"A": 2}}})
    assert seen[0].covered == {"g": 3, "s": 1, "b": 0}


def test_five_minute_lines_round_half_even_to_a_nano_dollar() -> None:
    data = document([pool("a", "gold", [2])], [offer("A", "on_demand", price="0.000000500")], step_minutes=6)
    game, _ = run(data, {"targets": {"web": {"A": 1}}})
    assert game.tally.nano == 50
    data["offers"][0]["price"] = "0.000000025"  # a tenth of 25 nano-dollars: 2.5, the even neighbour is 2
    game, _ = run(data, {"targets": {"web": {"A": 1}}})
    assert game.tally.nano == 2


BAD = {
    "not JSON": "targets",
    "wrong step": '{"type":"order","step":9,"targets":{}}',
    "wrong type": '{"type":"ready","step":0,"targets":{}}',
    "no targets": '{"type":"order","step":0}',
    "unknown fleet": '{"type":"order","step":0,"targets":{"app":{"A":1}}}',
    "unknown offer": '{"type":"order","step":0,"targets":{"web":{"Z":1}}}',
    "negative": '{"type":"order","step":0,"targets":{"web":{"A":-1}}}',
    "fractional": '{"type":"order","step":0,"targets":{"web":{"A":1.5}}}',
    "truth": '{"type":"order","step":0,"targets":{"web":{"A":true}}}',
    "too many": '{"type":"order","step":0,"targets":{"web":{"A":1000001}}}',
    "commitment as target": '{"type":"order","step":0,"targets":{"web":{"C":1}}}',
    "slow fallback": '{"type":"order","step":0,"targets":{},"fallback":{"web":["L"]}}',
    "bid of zero": '{"type":"order","step":0,"targets":{},"bids":{"B":"0"}}',
    "bid of words": '{"type":"order","step":0,"targets":{},"bids":{"B":"cheap"}}',
    "endless bid": '{"type":"order","step":0,"targets":{},"bids":{"B":"Infinity"}}',
    "commit to spot": '{"type":"order","step":0,"targets":{},"commit":[{"fleet":"web","offer":"B","units":1}]}',
}


@pytest.mark.parametrize("why", BAD)
def test_a_bad_answer_leaves_the_previous_order_standing(why: str) -> None:
    offers = [offer("A", "on_demand"), spot(9), offer("C", "commitment", term=2), offer("L", "on_demand", lead=2)]
    data = document([pool("a", "gold", [2, 2, 2])], offers)
    first = {"targets": {"web": {"A": 1}}, "commit": [{"fleet": "web", "offer": "C", "units": 1}]}
    game, seen = run(data, first, BAD[why], {"targets": {"web": {"A": 1}}})
    assert game.tally.malformed == 1
    assert seen[1].held["web"] == {"A": 1}
    assert [c.units for c in game._commitments] == [1]  # not bought again


def test_a_late_answer_counts_as_late() -> None:
    result: Result = play(case_of(tiny()), Scripted({"targets": {"web": {"A": 4}}}, Missed.LATE))
    assert (result.late, result.malformed) == (3, 0)
    assert result.cost == Decimal("1.6")


def test_a_dropped_load_is_taken_from_what_is_given_up() -> None:
    offers = [offer("A", "on_demand"), offer("D", "on_demand", "gcp/y")]
    data = document([pool("a", "gold", [8, 4, 8])], offers)
    game, seen = run(
        data,
        {"targets": {"web": {"A": 4}}},
        {"targets": {"web": {"A": 2, "D": 2}}},
        {"targets": {"web": {"A": 2, "D": 2}}},
    )
    assert game.tally.moves == 0
    assert seen[2].attached["web"] == {"aws/x": 4, "gcp/y": 4}
