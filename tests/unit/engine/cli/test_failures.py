"""What other libraries and the operating system raise, as the user meets it."""

import errno
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from engine.cli.failures import shows_tracebacks, tell, translated
from engine.errors import (
    AuthenticationFailed,
    BadUsageData,
    BudgetExceeded,
    ConfigurationError,
    ExitCode,
    ProviderUnavailable,
    ShardwrightError,
    StateInUse,
)


def test_an_error_of_ours_is_told_in_three_lines(capfd: pytest.CaptureFixture[str]) -> None:
    assert tell(BudgetExceeded("too dear", why="it costs [bold]3[/]", next_step="shardwright plan")) == ExitCode.BLOCKED
    out, err = capfd.readouterr()
    assert out == ""
    assert err.splitlines() == ["error: too dear", "why:   it costs [bold]3[/]", "next:  shardwright plan"]


@pytest.mark.parametrize(
    ("arguments", "step", "told"),
    [
        (("move", "X", "--config", "a.toml"), "shardwright moves", "shardwright moves   (with --config a.toml)"),
        (("run", "--config=a.toml"), "then shardwright moves", "then shardwright moves   (with --config a.toml)"),
        (("move", "X"), "shardwright moves", "shardwright moves"),
        (("move", "--config"), "shardwright moves", "shardwright moves"),
        (("run", "--config", "a.toml"), "shardwright run --config b.toml", "shardwright run --config b.toml"),
        (("run", "--config", "a.toml"), "free some space", "free some space"),
    ],
)
def test_the_next_command_is_for_the_same_file(
    arguments: tuple[str, ...], step: str, told: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["shardwright", *arguments])
    tell(ShardwrightError("odd", next_step=step))
    assert capfd.readouterr().err.splitlines()[-1] == f"next:  {told}"


def test_a_provider_that_fails_always_has_a_next_step(capfd: pytest.CaptureFixture[str]) -> None:
    assert tell(ProviderUnavailable("down")) == ExitCode.PROVIDER
    assert "next:  run the same command again" in capfd.readouterr().err


def test_long_lines_stay_whole_when_piped(capfd: pytest.CaptureFixture[str]) -> None:
    tell(ShardwrightError("x" * 300, why="y" * 300))
    assert [len(line) for line in capfd.readouterr().err.splitlines()][:2] == [307, 307]


@pytest.mark.parametrize(
    ("error", "step"),
    [
        (ConfigurationError("wrong key"), "shardwright config check"),
        (BadUsageData("no rows"), "shardwright forecast --usage FILE"),
        (AuthenticationFailed("refused"), "put the credentials right"),
        (ShardwrightError("odd"), "shardwright doctor"),
        (ShardwrightError("odd", next_step="its own"), "its own"),
    ],
)
def test_every_error_has_a_next_step(error: ShardwrightError, step: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert tell(error) == error.exit_code
    assert f"next:  {step}" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EACCES, "run as a user who may"),
        (errno.EROFS, "name a folder"),
        (errno.EADDRINUSE, "end the process that has the port"),
        (errno.EIO, "shardwright doctor"),
    ],
)
def test_what_the_operating_system_refuses_has_a_remedy(number: int, remedy: str) -> None:
    found = translated(OSError(number, "refused", "/there"))
    assert found.exit_code == ExitCode.ERROR
    assert "/there" in found.what
    assert errno.errorcode[number] in found.why
    assert remedy in found.next_step


@pytest.mark.parametrize(
    ("reason", "remedy"),
    [
        ("database or disk is full", "free some space"),
        ("database is locked", "end the other command"),
        ("attempt to write a readonly database", "run as a user who may"),
        ("file is not a database", "put a backup back"),
        ("connection refused", "state.database_url"),
    ],
)
def test_the_control_store_is_named(reason: str, remedy: str) -> None:
    found = translated(OperationalError("INSERT", {}, Exception(reason)))
    assert found.what == "the control store cannot be used"
    assert found.why == reason
    assert remedy in found.next_step


def test_a_cause_that_is_known_explains_what_is_raised_from_it() -> None:
    error = RuntimeError("workflow failed")
    error.__cause__ = StateInUse("in use")
    assert isinstance(translated(error), StateInUse)


def test_a_defect_is_called_one_and_says_how_to_see_more(monkeypatch: pytest.MonkeyPatch) -> None:
    found = translated(KeyError("nodes"))
    assert found.exit_code == ExitCode.ERROR
    assert "KeyError" in found.what
    assert "SHARDWRIGHT_LOG_LEVEL=debug" in found.next_step
    monkeypatch.setenv("SHARDWRIGHT_LOG_LEVEL", "debug")
    assert shows_tracebacks()


def test_a_missing_file_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nothing") as caught:
        (tmp_path / "nothing").read_text()
    assert str(tmp_path / "nothing") in translated(caught.value).what
