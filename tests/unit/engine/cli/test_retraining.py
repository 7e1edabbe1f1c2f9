import json
import logging
import tomllib
from pathlib import Path

import pandas as pd
import pytest
from click.testing import Result
from typer.testing import CliRunner

from engine.app.control import round_retraining
from engine.app.demand import ForecastDemand
from engine.cli.forecast import app
from engine.clock import ManualClock
from engine.config import parse_configuration
from engine.errors import BadUsageData, ConfigurationError, StateInUse
from engine.events import unseen
from engine.store.state_lock import hold_file
from forecasting.synthetic import synthetic_fleet
from tests.retraining_cases import NOW
from tests.small_configuration import GOOD


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("forecasting.network.TUNING_STEPS", 30)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def usage(tmp_path: Path) -> Path:
    parts = []
    for history in synthetic_fleet(2, seed=5, days=28):
        times = pd.date_range(history.start, periods=len(history.values), freq="h")
        parts.append(pd.DataFrame({"series_id": history.series_id, "timestamp": times, "cpu_cores": history.values}))
    path = tmp_path / "usage.parquet"
    pd.concat(parts).to_parquet(path)
    return path


def call(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    logging.getLogger("dbos").handlers.clear()  # it keeps the runner's stderr, which is closed by now
    if result.exception is not None:
        raise result.exception
    return result


def test_retraining_by_hand_and_what_the_registry_lists_then(usage: Path) -> None:
    assert call("models").stdout.startswith("0 networks in .shardwright/models")
    told = call("retrain", "--usage", usage, "--horizon", 12)
    assert told.stdout.startswith("version 1 is ")
    assert "retraining: first: 1344 values, and never trained on them; 2 series of cpu_cores" in told.stderr
    again = json.loads(call("retrain", "--usage", usage, "--horizon", 12, "--force", "--output", "json").stdout)["data"]
    assert again["record"] is None
    assert again["verdict"]["why"] == "retraining 1 was made from exactly this usage"
    call("--usage", usage, "--horizon", 3, "--budget", 1)
    listed = json.loads(call("models", "--output", "json").stdout)["data"]
    (record,) = listed["retrainings"]
    assert {card["fingerprint"] for card in listed["networks"]} > {record["model"]}
    assert listed["standing"] == ([record["model"]] if record["promoted"] else [])
    shown = call("models").stdout
    assert "2 networks" in shown
    assert "trained for one forecast" in shown
    assert "never trained on them; loss beside" in " ".join(shown.split())


def test_the_usage_of_the_configuration_and_its_terms(usage: Path, tmp_path: Path) -> None:
    text = f'{GOOD}\n[state]\ndirectory = "{tmp_path / "state"}"\n[forecast]\nusage = "{usage}"\nhorizon_steps = 12\n'
    path = tmp_path / "shardwright.toml"
    path.write_text(f"{text}[forecast.retraining]\nmin_new_days = 3\n")
    assert "version 1" in call("retrain", "--config", path, "--budget", 5).stdout
    frame = pd.read_parquet(usage)
    frame[frame.timestamp < frame.timestamp.max()].to_parquet(usage)
    kept = call("retrain")
    assert "0 days of new usage since the last training; at least 3 days are needed" in kept.stdout
    assert len(json.loads(call("models", "--output", "json").stdout)["data"]["retrainings"]) == 1


def test_what_the_last_round_saw_says_whether_it_is_due(usage: Path, tmp_path: Path) -> None:
    raw = {**tomllib.loads(GOOD), "state": {"directory": str(tmp_path / "state")}}
    raw["forecast"] = {"usage": str(usage), "horizon_steps": 3, "budget_seconds": 1}
    configuration, clock = parse_configuration(raw, origin="f"), ManualClock(NOW)
    demand = ForecastDemand(configuration, clock, unseen)
    retraining = round_retraining(configuration, demand, clock)
    assert retraining.due().why == "no forecast was made in this process yet"
    demand.targets()
    assert retraining.due().cause == "first"
    usage.unlink()  # the round's own usage is what is trained on
    assert retraining.take("k").series == 2


def test_one_command_at_a_time_on_a_registry(usage: Path, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    with hold_file(tmp_path / "m" / "retraining.lock"):
        found = CliRunner().invoke(app, ["retrain", "--usage", str(usage), "--models", str(tmp_path / "m")]).exception
    assert isinstance(found, StateInUse)
    assert "another retraining uses this state" in found.what


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        (["retrain"], ConfigurationError, "there is no configuration"),
        (["retrain", "--usage", "absent.csv"], BadUsageData, "no usage file absent.csv"),
        (["models", "--config", "absent.toml"], ConfigurationError, "cannot read absent.toml"),
    ],
)
def test_what_cannot_be_done_is_told(arguments: list[str], error: type[Exception], says: str) -> None:
    found = CliRunner().invoke(app, arguments).exception
    assert isinstance(found, error)
    assert says in str(found)
