"""The demo, with assertions: the real Pulumi engine, real QEMU guests, real sockets, from start to end."""

import csv
import json
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from providers.sandbox.processes import MARKER

ROOT = Path(__file__).resolve().parents[2]
STAGES = ["sandbox", "forecast", "plan", "reconcile", "shards", "move", "bills", "clean"]

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, dict[str, Any]], Path]:
    state = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-c", "from engine.cli import main; main()", "demo", "--state", str(state)]
    environment = {key: value for key, value in os.environ.items() if key != MARKER}
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    assert result.returncode == 0, result.stderr[-4000:]
    assert result.stdout == "", "talk belongs on stderr"
    lines = [json.loads(line) for line in (state / "demo.jsonl").read_text().splitlines()]
    assert [line["stage"] for line in lines] == STAGES
    return {line["stage"]: line for line in lines}, state


Demo = tuple[dict[str, dict[str, Any]], Path]


def test_five_providers_serve(demo: Demo) -> None:
    assert set(demo[0]["sandbox"]["providers"]) == {"aws", "gcp", "azure", "harbor", "agora"}
    assert demo[0]["sandbox"]["namespaces"] is True


def test_the_forecast_is_a_probability_beside_the_naive_one(demo: Demo) -> None:
    for pool in demo[0]["forecast"]["pools"]:
        assert pool["synthetic"] is True
        assert 0 <= pool["need"]["probability"] <= 1
        assert "cpu.small" in pool["sentence"]
        assert "within the next hour" in pool["sentence"]
        assert "cpu.small" in pool["naive_sentence"]
    assert "rnn" in {pool["forecaster"] for pool in demo[0]["forecast"]["pools"]}


def test_fixed_spot_and_auction_purchases_come_with_cost_and_risk(demo: Demo) -> None:
    plan = demo[0]["plan"]
    assert {"spot", "auction"} <= set(plan["strategies"])
    assert {"fixed_price", "rfq"} & set(plan["strategies"]), "a posted price, as it is or talked down"
    assert plan["why_not"] > 0
    assert len(plan["cost_quantiles"]) >= 3
    for purchase in plan["bought"]:
        assert Decimal(purchase["price"].split()[0]) <= Decimal(purchase["ceiling"].split()[0])
    for pool in plan["pools"]:
        assert pool["planned"] >= pool["desired"]
        assert 0 <= pool["shortfall_probability"] <= 1


def test_four_cells_came_up_and_a_second_round_changed_nothing(demo: Demo) -> None:
    reconcile = demo[0]["reconcile"]
    providers = {cell["cell"].split("/")[0] for cell in reconcile["cells"]}
    assert {"aws", "gcp", "azure"} <= providers
    assert providers & {"harbor", "agora"}
    assert all(cell["create"] > 0 for cell in reconcile["cells"])
    assert all(not (cell["create"] or cell["update"] or cell["delete"]) for cell in reconcile["second_round"])
    assert reconcile["second_round_changed"] is False


def test_every_shard_came_up_and_every_component_resolves(demo: Demo) -> None:
    shards = demo[0]["shards"]
    assert shards["shards"] == sum(pool["planned"] for pool in demo[0]["plan"]["pools"])
    assert len(shards["boot_seconds"]) == shards["shards"]
    assert len(shards["resolved"]) == shards["bound"] > 0
    assert set(shards["served"]) == {"shard://shop/web/api", "shard://shop/web/db"}
    assert sum(sum(providers.values()) for providers in shards["served"].values()) == shards["bound"]
    assert len(shards["served"]["shard://shop/web/api"]) > 1


def test_the_reclaimed_shard_moved_live_and_lost_nothing(demo: Demo) -> None:
    reclaim = demo[0]["move"]["reclaim"]
    assert reclaim["from"].split("/")[0] != reclaim["to"].split("/")[0]
    assert (reclaim["missing"], reclaim["doubled"], reclaim["connections"]) == (0, 0, 1)
    assert reclaim["records"] >= 80
    assert reclaim["downtime_ms"] < 5000
    assert reclaim["epoch"] == 2


def test_the_cost_driven_move_shows_a_sum_that_passes(demo: Demo) -> None:
    gate = demo[0]["move"]["cost"]["gate"]
    costs = ("egress", "double_pay", "downtime", "risk_at_target", "lost_commitment")
    assert gate["passes"] is True
    assert Decimal(gate["saving"]["amount"]) > sum(Decimal(gate[cost]["amount"]) for cost in costs)


def test_the_one_bill_is_the_sum_of_the_invoices_to_the_cent(demo: Demo) -> None:
    bills, state = demo[0]["bills"], demo[1]
    invoices = sum(Decimal(total.split()[0]) for total in bills["invoices"].values())
    assert Decimal(bills["total"].split()[0]) == invoices > 0
    assert len(bills["invoices"]) == 5
    with (state / "demo-bill.focus.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == bills["charges"]
    assert sum(Decimal(row["BilledCost"]) for row in rows) == invoices
    assert sum(Decimal(cost) for cost in bills["by_workload"].values()) == invoices
    assert any("shop/web" in line for line in bills["by_workload"])


def test_nothing_is_left(demo: Demo) -> None:
    clean, state = demo[0]["clean"], demo[1]
    assert clean["leftovers"] == []
    assert clean["stack_resources"] == 0
    names = {"demo.jsonl", "demo-bill.focus.csv", "demo-bill.focus.parquet"}
    assert {path.name.removesuffix(".metadata.json") for path in state.iterdir()} == names


def test_it_fits_into_five_minutes(demo: Demo) -> None:
    # Not a timing test: the promise to whoever watches, with the margin that a busy machine needs.
    assert sum(line["seconds"] for line in demo[0].values()) < 600
