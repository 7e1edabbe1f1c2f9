"""Messages: what the game writes, what a policy may leave out, what another host may add."""

import json
from decimal import Decimal

import pytest

from lab.game import Game
from lab.wire import Commit, Init, Missed, Observe, Order, read_message, read_order, read_ready
from tests.unit.lab.cases import case_of, tiny


def test_init_carries_what_the_protocol_says_and_no_more() -> None:
    init = json.loads(Game(case_of(tiny())).init().line())
    assert set(init) == {
        "type", "protocol", "case", "steps", "step_minutes", "start", "max_shortfall", "risk_classes", "fleets",
        "pools", "offers",
    }  # fmt: skip
    assert init["start"] == "2024-07-01 00:00:00+00:00"
    on_demand, spot, commitment = init["offers"]
    common = {
        "id", "option", "provider", "region", "area", "cell", "group", "instance_type", "vector", "shards_per_unit",
        "lead", "min_steps", "on_demand_price",
    }  # fmt: skip
    assert set(on_demand) == common | {"price"}
    assert set(spot) == common | {"price_history", "interruption_band"}
    assert set(commitment) == common | {"price", "term"}


def test_what_the_game_writes_comes_back() -> None:
    game = Game(case_of(tiny()))
    game.step(Order(step=-1, targets={"web": {"A": 1}}, commit=(Commit(fleet="web", offer="C", units=1),)))
    for message in (game.init(), game.observe(), game.end()):
        back = read_message(message.line())
        assert back == message
        assert type(back) is type(message)
    assert json.loads(game.observe().line())["commitments"] == [
        {"fleet": "web", "offer": "C", "units": 1, "from": 0, "until": 3}
    ]


def test_another_host_may_add_fields_and_write_numbers() -> None:
    init = json.loads(Game(case_of(tiny())).init().line())
    init["weather"] = "fine"
    init["offers"][0]["price"] = 0.1
    init["offers"][0]["depth"] = 3
    read = read_message(json.dumps(init))
    assert isinstance(read, Init)
    assert read.offers[0].price == Decimal("0.1")
    seen = read_message('{"type":"observe","step":-1,"demand":{},"covered":{},"prices":{"B":"0.0300"}}')
    assert isinstance(seen, Observe)
    assert seen.prices == {"B": Decimal("0.03")}


@pytest.mark.parametrize("line", ["", "{", "[]", '{"type":"order"}', '{"type":"observe"}'])
def test_what_is_no_message_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="validation error"):
        read_message(line)


def test_an_order_may_leave_out_what_is_optional() -> None:
    order = read_order('{"type":"order","step":3,"targets":{}}')
    assert order == Order(step=3, targets={})
    assert read_order(Order(step=3, targets={"web": {"A": 2}}, bids={"B": Decimal("0.09")}).line()) == Order(
        step=3, targets={"web": {"A": 2}}, bids={"B": Decimal("0.09")}
    )


@pytest.mark.parametrize("line", [b"\xff\xfe", "null", '{"type":"order","step":"3","targets":{}}', "[" * 5000])
def test_what_is_no_order_is_malformed(line: str | bytes) -> None:
    assert read_order(line) is Missed.MALFORMED


def test_ready_is_ready() -> None:
    assert read_ready('{"type":"ready"}')
    assert not read_ready('{"type":"steady"}')
    assert not read_ready("ready")
