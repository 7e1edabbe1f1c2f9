"""``shardwright lab``: cases in, a table, JSON or a page out."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests.command import InProcess
from tests.unit.lab import market_tables as tables
from tests.unit.lab.cases import tiny


@pytest.fixture
def case(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps(tiny()), encoding="utf-8")
    return path


def test_run_prints_a_table_and_tells_progress_on_stderr(command: InProcess, case: Path) -> None:
    told = command("lab", "run", "--case", case, "--policies", "reactive,greedy-spot")
    assert told.code == 0, told.err
    assert "greedy-spot" in told.out
    assert "best baseline of each case" in told.out
    assert "1/2 small reactive" in told.err


def test_run_writes_json_and_a_page(command: InProcess, case: Path, tmp_path: Path) -> None:
    whole, page = tmp_path / "out.json", tmp_path / "out.html"
    told = command(
        "lab", "run", "--case", case, case, "--policies", "reactive", "--seed", "5",
        "--output", "json", "--output-file", whole, "--html", page,
    )  # fmt: skip
    assert told.data["seed"] == 5
    assert [each["case"] for each in told.data["cases"]] == ["small", "small"]
    assert json.loads(whole.read_text(encoding="utf-8")) == told.data
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_bound_gives_both_bounds(command: InProcess, case: Path) -> None:
    told = command("lab", "bound", "--case", case, "--output", "json")
    assert told.data[0]["within_limits"]["cost"] == "0.697000"
    assert told.data[0]["nothing_short"]["cost"] == "0.710000"
    assert "0.70" in command("lab", "bound", case).out


def test_a_case_is_built_from_ones_own_history(command: InProcess, tmp_path: Path) -> None:
    built = tmp_path / "case.json.gz"
    told = command(
        "lab", "run", "--usage", tables.usage(tmp_path / "u.csv"), "--offers", tables.offers(tmp_path / "o.csv"),
        "--spot", tables.spot(tmp_path / "s.csv"), "--availability", tables.availability(tmp_path / "a.csv"),
        "--risk", "0.01", "--days", "2", "--policies", "reactive,quantile-diversified", "--case-file", built,
        "--output", "json",
    )  # fmt: skip
    assert told.code == 0, told.err
    assert told.data["notes"]
    assert "rows left out" in told.err
    inputs = told.data["inputs"]
    assert [each["option"] for each in inputs["files"]] == ["--usage", "--offers", "--spot", "--availability"]
    repeated = command("lab", "run", *inputs["arguments"], "--output", "json")
    assert [figures(each) for each in repeated.data["cases"]] == [figures(each) for each in told.data["cases"]]
    assert repeated.data["inputs"] == inputs
    again = command("lab", "run", "--case", built, "--policies", "reactive", "--output", "json")
    assert again.data["cases"][0]["fingerprint"] == told.data["cases"][0]["fingerprint"]


def figures(case: dict[str, Any]) -> list[Any]:
    return [case["fingerprint"], *[(each["policy"], each["result"], each["regret"]) for each in case["played"]]]


def test_the_table_names_seed_and_inputs(command: InProcess, case: Path) -> None:
    told = command("lab", "run", case, "--policies", "reactive", "--seed", "5")
    assert "seed 5" in told.out
    assert sha256(case.read_bytes()).hexdigest()[:16] in told.out


def test_options_that_change_no_figure_are_not_recorded(command: InProcess, case: Path, tmp_path: Path) -> None:
    told = command(
        "lab", "run", "--policies", "reactive", "--html", tmp_path / "x.html", "--engine", "local",
        "--output", "json", case,
    )  # fmt: skip
    assert told.data["inputs"]["arguments"] == ["--case", str(case), "--policies", "reactive", "--seed", "0"]


def test_bad_input_is_refused(command: InProcess, case: Path, tmp_path: Path) -> None:
    command("lab", "run").refused(2, "no case was given")
    command("lab", "run", "--case", tmp_path / "none.json").refused(2, "No such file")
    command("lab", "run", "--case", case, "--policies", "reactiv").refused(2, "did you mean 'reactive'")
    command("lab", "run", "--case", case, "--policies", "").refused(2, "--policies is empty")
    command("lab", "run", "--case", case, "--usage", case).refused(2, "--usage stands beside --case")
    command("lab", "run", "--usage", tables.usage(tmp_path / "u.csv")).refused(2, "--offers is missing")
    command("lab", "run", "--case", case, "--html", tmp_path / "no" / "x.html").refused(2, "cannot be written")
    command("lab", "run", "--case", case, "--policies", "reactive", "--policy-command", "no-such-program").refused(
        2, "cannot be started"
    )
    command("lab", "run", "--case", case, "--workers", "2").refused(2, "--workers needs --engine ray")
    case.write_text("{", encoding="utf-8")
    command("lab", "bound", "--case", case).refused(2, "not a case of the capacity game")
