import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import Result
from typer.testing import CliRunner

from engine.cli.forecast import app
from engine.errors import BadUsageData, MissingPart, UsageError
from forecasting.synthetic import synthetic_fleet


@pytest.fixture(scope="module")
def usage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two series of two weeks, hourly."""
    return written(tmp_path_factory.mktemp("usage") / "usage.parquet", days=14)


def written(path: Path, *, days: int) -> Path:
    parts = []
    for history in synthetic_fleet(2, seed=5, days=days):
        times = pd.date_range(history.start, periods=len(history.values), freq="h")
        parts.append(pd.DataFrame({"series_id": history.series_id, "timestamp": times, "cpu_cores": history.values}))
    pd.concat(parts).to_parquet(path)
    return path


def call(*arguments: object, folder: Path) -> Result:
    given = [str(argument) for argument in arguments]
    return CliRunner().invoke(app, [*given, "--budget", "0.5", "--models", str(folder / "models")])


def data(result: Result) -> object:
    assert result.exception is None, result.output
    return json.loads(result.stdout)["data"]


def test_forecast_writes_every_point_without_crossing(usage: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    result = call("--usage", usage, "--horizon", 6, "--quantiles", "0.1,0.5,0.9", "--output-file", out, folder=tmp_path)
    assert result.exception is None, result.output
    assert "synthetic-1" in result.stdout
    frame = pd.read_parquet(out)
    assert list(frame.columns) == ["series_id", "timestamp", "quantile", "value"]
    wide = frame.pivot(index=["series_id", "timestamp"], columns="quantile", values="value")
    assert wide.shape == (12, 3)
    assert (np.diff(wide.to_numpy(), axis=1) >= 0).all()


def test_series_that_ended_long_ago_and_cold_starts_are_told(usage: Path, tmp_path: Path) -> None:
    frame = pd.read_parquet(usage)
    old = frame[frame.series_id == "synthetic-1"].head(100).assign(series_id="old")
    new = frame[frame.series_id == "synthetic-1"].tail(3).assign(series_id="new")
    pd.concat([frame, old, new]).to_parquet(tmp_path / "mixed.parquet")
    result = call("--usage", tmp_path / "mixed.parquet", "--horizon", 6, folder=tmp_path)
    assert result.exception is None, result.output
    assert "stale: old ends 2026-01-09" in result.stderr
    assert "cold start, too little history to score: 1 series (new)" in result.stderr


def test_a_series_without_any_value_is_left_out_by_name(usage: Path, tmp_path: Path) -> None:
    frame, out = pd.read_parquet(usage), tmp_path / "out.parquet"
    dead = frame[frame.series_id == "synthetic-1"].assign(series_id="dead", cpu_cores=np.nan)
    path = tmp_path / "mixed.parquet"
    pd.concat([frame, dead]).to_parquet(path)
    result = call("--usage", path, "--horizon", 3, "--output", "json", "--output-file", out, folder=tmp_path)
    found = data(result)
    assert isinstance(found, dict)
    assert found["left_out"] == ["dead"]
    assert "left out: dead holds no value" in result.stderr
    written = pd.read_parquet(out)
    assert set(written.series_id) == {"synthetic-1", "synthetic-2"}
    assert written.groupby("series_id").timestamp.nunique().tolist() == [3, 3]
    for verb in (["evaluate", "--horizon", 3, "--origins", 1], ["probability"]):
        assert "left out: dead" in call(*verb, "--usage", path, folder=tmp_path).stderr
    dead.to_parquet(path)
    refused = call("--usage", path, "--horizon", 3, folder=tmp_path).exception
    assert isinstance(refused, BadUsageData)
    assert (refused.exit_code, refused.why) == (2, "every value of dead is missing")


def test_scheduled_events_are_learnt_and_told(usage: Path, tmp_path: Path) -> None:
    events = tmp_path / "events.csv"
    events.write_text("kind,start,end\nmatch,2026-01-14T10:00,2026-01-14T14:00\nlaunch,2027-01-01,2027-01-02\n")
    result = call("--usage", usage, "--horizon", 3, "--events", events, folder=tmp_path)
    assert result.exception is None, result.output
    assert "event match:" in result.stderr
    assert "event launch: never seen" in result.stderr


def test_forecast_as_json_names_the_forecaster_and_its_scores(usage: Path, tmp_path: Path) -> None:
    found = data(call("--usage", usage, "--horizon", 3, "--output", "json", folder=tmp_path))
    assert isinstance(found, dict)
    assert found["metric"] == "cpu_cores"
    assert len(found["points"]) == 2 * 3 * 12
    assert found["drift"]["ratio"] < 1
    assert "shipped" in found["network"]
    assert {score["forecaster"] for score in found["series"][0]["scores"]} >= {"rnn", "seasonal_naive"}


def test_the_second_run_loads_what_the_first_trained(usage: Path, tmp_path: Path) -> None:
    runs = [data(call("--usage", usage, "--horizon", 3, "--output", "json", folder=tmp_path)) for _ in range(2)]
    assert runs[0] == runs[1]  # the training report, with its seconds, included
    assert len(list((tmp_path / "models").iterdir())) == 1


def test_probability_answers_for_the_champion_and_for_seasonal_naive(usage: Path, tmp_path: Path) -> None:
    arguments = ["probability", "--usage", usage, "--series", "synthetic-1", "--per-shard", 2, "--within", "2h"]
    answers = data(call(*arguments, "--additional", 2, "--output", "json", folder=tmp_path))
    assert isinstance(answers, list)
    assert len(answers) == 2
    assert answers[1]["forecaster"] == "seasonal_naive"
    assert all(0 <= answer["probability"] <= 1 and answer["additional"] == 2 for answer in answers)
    assert "more cpu.small shards within the next 2 hours" in answers[0]["sentence"]
    table = call(*arguments, "--additional", 2, folder=tmp_path)
    assert answers[0]["sentence"] in table.stdout


def test_evaluate_prints_ratios_to_seasonal_naive(usage: Path, tmp_path: Path) -> None:
    arguments = ["evaluate", "--usage", usage, "--horizon", 6, "--origins", 2]
    found = data(call(*arguments, "--output", "json", folder=tmp_path))
    assert isinstance(found, dict)
    standings = {standing["forecaster"]: standing for standing in found["standings"]}
    assert standings["seasonal_naive"]["wql_ratio"] == pytest.approx(1.0)
    assert {"champion", "rnn", "last_value"} <= set(standings)
    page = tmp_path / "report.html"
    table = call(*arguments, "--html", page, folder=tmp_path)
    assert "champion" in table.stdout
    assert "never trained on" in table.stderr
    assert "P(need" in page.read_text(encoding="utf-8")


def test_evaluate_judges_gradient_boosting_where_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    longer = written(tmp_path / "usage.parquet", days=21)
    arguments = ["evaluate", "--usage", longer, "--horizon", 3, "--origins", 1]
    plain, boosted = (
        {standing["forecaster"]: standing for standing in found["standings"]}
        for options in ([], ["--boosting"])
        if isinstance(found := data(call(*arguments, *options, "--output", "json", folder=tmp_path)), dict)
    )
    own = boosted.pop("gradient_boosting")
    assert plain == boosted  # it has no share in any other forecast
    assert own["wql"] < boosted["last_value"]["wql"]
    assert "gradient_boosting" in call(*arguments, "--boosting", folder=tmp_path).stdout
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    refused = call(*arguments, "--boosting", folder=tmp_path).exception
    assert isinstance(refused, MissingPart)
    assert "requirements/boosting.txt" in (refused.next_step or "")


def test_repairs_are_told_on_stderr(tmp_path: Path) -> None:
    path = tmp_path / "usage.csv"
    lines = [f"a,2026-01-{5 + h // 24:02}T{h % 24:02}:00:00,{h % 24}" for h in range(72)]
    path.write_text("series_id,timestamp,value\n" + "\n".join(lines))
    result = call("--usage", path, "--horizon", 3, folder=tmp_path)
    assert "naive_timestamp: 72 in 1 series; taken as UTC" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ([], UsageError, "no usage file"),
        (["--usage", "absent.csv"], BadUsageData, "no usage file absent.csv"),
        (["--usage", "{usage}", "--freq", "often"], UsageError, "not a duration"),
        (["--usage", "{usage}", "--quantiles", "0.5,1.5"], UsageError, "--quantiles"),
        (["--usage", "{usage}", "--metric", "cpu_core"], BadUsageData, "did you mean 'cpu_cores'"),
        (["--usage", "{usage}", "--output-file", "/nowhere/out.parquet"], UsageError, "cannot be written"),
        (["probability", "--usage", "{usage}", "--series", "synthetic-9"], BadUsageData, "did you mean"),
        (["probability", "--usage", "{usage}", "--per-shard", "0"], UsageError, "cannot serve"),
        (["probability", "--usage", "{usage}", "--additional", "1", "--at-least", "0.5"], UsageError, "two questions"),
        (["evaluate", "--usage", "{usage}", "--horizon", "500"], BadUsageData, "long enough"),
    ],
)
def test_what_cannot_be_done_is_told(
    arguments: list[str], error: type[UsageError], says: str, usage: Path, tmp_path: Path
) -> None:
    result = call(*(a.format(usage=usage) for a in arguments), folder=tmp_path)
    assert isinstance(result.exception, error)
    assert says in result.exception.what
    assert result.exception.next_step


def test_nothing_heavy_is_loaded_before_a_verb_runs() -> None:
    code = "import sys, engine.cli.forecast; print([m for m in ('torch', 'pandas', 'pyarrow') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
