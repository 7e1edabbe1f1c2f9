import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from engine.cli.forecast import app
from engine.errors import BadUsageData, ProviderError, UsageError
from tests.small_configuration import GOOD


@pytest.fixture
def usage(tmp_path: Path) -> Path:
    lines = [f"a,2026-01-{5 + h // 24:02}T{h % 24:02}:00:00Z,{h % 24 + 1}" for h in range(72)]
    lines[30] = lines[30].rpartition(",")[0] + ",-4"
    lines[50:53] = [line.rpartition(",")[0] + ",0" for line in lines[50:53]]
    path = tmp_path / "usage.csv"
    path.write_text("series_id,timestamp,cpu_cores\n" + "\n".join(lines))
    return path


def check(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["check", *(str(argument) for argument in arguments)])


def test_the_table_says_what_was_mended_and_what_was_kept(usage: Path) -> None:
    result = check("--usage", usage)
    assert result.exception is None, result.output
    lines = result.stdout.splitlines()
    assert any("negative" in line and "row 31" in line and "counted as not measured" in line for line in lines)
    assert any("outage" in line and "2026-01-07 02:00" in line and "kept as it is" in line for line in lines)
    assert "1 series, 0 of them without a remark; 71 of 72 steps measured" in result.stderr


def test_json_holds_the_same_and_nothing_else_is_on_stdout(usage: Path) -> None:
    document = json.loads(check("--usage", usage, "--output", "json").stdout)
    assert document["kind"] == "usage_quality"
    (series,) = document["data"]["series"]
    assert [repair["defect"] for repair in series["repairs"]] == ["negative"]
    assert [finding["observation"] for finding in series["findings"]] == ["outage"]


def test_a_clean_file_needs_no_table(usage: Path) -> None:
    usage.write_text(usage.read_text().replace(",-4", ",7").replace(",0\n", ",3\n"))
    result = check("--usage", usage)
    assert (result.stdout, "1 of them without a remark" in result.stderr) == ("", True)


def test_what_cannot_be_read_is_refused_with_its_row(usage: Path) -> None:
    usage.write_text(usage.read_text().replace(",-4", ",x"))
    result = check("--usage", usage)
    assert isinstance(result.exception, BadUsageData)
    assert "row 31" in result.exception.what
    assert isinstance(check().exception, UsageError)


@pytest.fixture
def configured(usage: Path, tmp_path: Path) -> Path:
    path = tmp_path / "shardwright.toml"
    source = f'[[forecast.sources]]\nname = "file"\nkind = "file"\npath = "{usage}"\n'
    path.write_text(f'{GOOD}\n[state]\ndirectory = "{tmp_path / "state"}"\n{source}')
    return path


def fetch(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["fetch", *(str(argument) for argument in arguments)])


def test_fetch_tells_what_each_source_holds(configured: Path) -> None:
    (state,) = json.loads(fetch("--config", configured, "--output", "json").stdout)["data"]
    assert (state["source"], state["samples"], state["added"], state["failure"]) == ("file", 72, 72, "")
    again = fetch("--config", configured)
    assert again.exception is None, again.output
    assert "2026-01-07 23:00" in again.stdout


def test_fetch_of_a_source_that_fails_keeps_and_shows_what_there_was(configured: Path, usage: Path) -> None:
    fetch("--config", configured)
    usage.unlink()
    result = fetch("--config", configured)
    assert isinstance(result.exception, ProviderError)
    assert "no usage file" in result.exception.why
    assert "72" in result.stdout


def test_fetch_without_a_source_says_where_to_name_one(configured: Path) -> None:
    configured.write_text(GOOD)
    result = fetch("--config", configured)
    assert isinstance(result.exception, UsageError)
    assert "usage-history.md" in result.exception.next_step


def test_holidays_are_shown_and_written(tmp_path: Path) -> None:
    span = ["--start", "2026-12-24", "--end", "2027-01-01"]
    arguments = ["holidays", "--region", "DE", *span, "--output-file", str(tmp_path / "e.csv")]
    result = CliRunner().invoke(app, [*arguments, "--output", "json"])
    assert result.exception is None, result.output
    assert [one["name"] for one in json.loads(result.stdout)["data"]][:1] == ["Christmas Day"]
    assert len((tmp_path / "e.csv").read_text().splitlines()) == 4
    assert "Christmas Day" in CliRunner().invoke(app, arguments).stdout
