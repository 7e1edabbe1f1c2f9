"""The command line itself: exit codes, help, usage errors, and that nothing but data goes to stdout."""

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import pytest
import typer

from engine.cli.main import app
from engine.errors import AuthenticationFailed, BillDoesNotReconcile, NoOfferFits, ProviderUnavailable, UsageError
from tests.command import EXECUTABLE, InProcess, shardwright


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Make ``shardwright doctor`` end like that."""

    def examine(_checks: object) -> None:
        raise error

    monkeypatch.setattr("engine.doctor.examine", examine)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("x", next_step="y"), 2),
        (AuthenticationFailed("x", next_step="y"), 3),
        (ProviderUnavailable("x"), 4),
        (NoOfferFits("x", next_step="y"), 5),
        (BillDoesNotReconcile("x", next_step="y"), 6),
        (ZeroDivisionError("x"), 1),
        (OSError(28, "No space left on device"), 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_every_error_has_its_exit_code_and_no_traceback(
    command: InProcess, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int
) -> None:
    failing(monkeypatch, error)
    command("doctor").refused(code)


def test_the_code_of_an_exit_is_not_lost(command: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, typer.Exit(4))
    assert command("doctor").code == 4


def test_ctrl_c_is_130(command: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, KeyboardInterrupt())
    told = command("doctor")
    assert (told.code, told.out, told.err) == (130, "", "cancelled\n")


def test_a_traceback_is_shown_to_who_asks_for_it(command: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, ZeroDivisionError("x"))
    monkeypatch.setenv("SHARDWRIGHT_LOG_LEVEL", "debug")
    assert "Traceback" in command("doctor").err


def test_an_empty_command_line_shows_the_help_as_an_error(command: InProcess) -> None:
    told = command()
    assert (told.code, told.out) == (2, "")
    assert told.err.startswith("Usage: ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("forecats",), ("Did you mean 'forecast'", "next:  shardwright --help")),
        (("bills", "fetch", "--nope"), ("No such option: --nope", "next:  shardwright bills fetch --help")),
        (("run", "--rounds", "-1"), ("--rounds", "greater than or equal to 0")),
        (("run", "--rounds", "0"), ("there is nothing to do", "next:  shardwright run --serve --rounds 0")),
        (("offers", "--vcpus", "-1"), ("--vcpus",)),
        (("plan", "--output", "yaml"), ("'yaml' is not one of 'table', 'json'",)),
        (("bills", "fetch", "--start", "yesterday"), ("--start",)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_wrong_command_line_says_where_to_look(
    command: InProcess, arguments: tuple[str, ...], said: tuple[str, ...]
) -> None:
    command(*arguments).refused(2, *said)


def test_the_version_and_the_help_are_data(command: InProcess) -> None:
    assert command("--version").out.strip() == version("shardwright")
    told = command("--help")
    assert told.code == 0
    assert "doctor" in told.out


def test_every_command_that_prints_data_can_print_json() -> None:
    """Those without it only act, write files, or print a document that is JSON already."""
    root = typer.main.get_command(app)
    without = set()
    for name, found in root.commands.items():  # type: ignore[attr-defined]
        for inner, each in {**getattr(found, "commands", {}), "": found}.items():
            if not inner and getattr(found, "commands", {}) and not getattr(found, "invoke_without_command", False):
                continue
            if not any("--output" in parameter.opts for parameter in each.params):
                without.add(f"{name} {inner}".strip())
    assert without == {
        "agent",
        "demo",
        "config check",
        "sandbox up",
        "sandbox down",
        "bills export",
        "network accept",
        "network describe",
        "lab play",
        "gateway add",
        "gateway remove",
        "storage forget",
    }


def test_a_reader_that_goes_away_is_no_error(command: InProcess) -> None:
    """``shardwright doctor | head -1`` says nothing on stderr."""
    with subprocess.Popen(
        [str(EXECUTABLE), "doctor", "--output", "json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        _, err = process.communicate(timeout=60)
    assert err == ""


def test_an_interrupt_while_it_is_still_loading_is_quiet() -> None:
    script = """
import builtins, engine.cli
real = builtins.__import__
def load(name, *rest, **named):
    if name == "engine.cli.main":
        raise KeyboardInterrupt
    return real(name, *rest, **named)
builtins.__import__ = load
engine.cli.main()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_the_shell_completes_commands() -> None:
    words = {"_SHARDWRIGHT_COMPLETE": "complete_bash", "COMP_WORDS": "shardwright bills re", "COMP_CWORD": "2"}
    told = shardwright(environment=words)
    assert (told.code, told.out.split()) == (0, ["report"])
    assert "complete" in shardwright(environment={"_SHARDWRIGHT_COMPLETE": "source_bash"}).out


def numbers() -> Iterator[tuple[str, ...]]:
    """Every option that takes a number with a fraction, behind its verb."""

    def walk(path: tuple[str, ...], command: Any) -> Iterator[tuple[str, ...]]:
        yield from ((*path, option.opts[0]) for option in command.params if isinstance(option.default, float))
        for name, inner in getattr(command, "commands", {}).items():
            yield from walk((*path, name), inner)

    yield from walk((), typer.main.get_command(app))
    yield "forecast", "probability", "--at-least"


@pytest.mark.parametrize("arguments", list(numbers()), ids=" ".join)
def test_what_is_no_finite_number_is_refused_at_once(command: InProcess, arguments: tuple[str, ...]) -> None:
    for text in ("nan", "inf"):
        command(*arguments, text).refused(2, f"Invalid value for '{arguments[-1]}'")


def test_who_cancels_and_no_longer_listens_is_told_nothing() -> None:
    script = """
import sys, types
from engine.cli import main
def run():
    print("half of it")
    sys.exit(130)
sys.modules["engine.cli.main"] = types.SimpleNamespace(run=run)
main()
"""
    buffered = {**os.environ, "PYTHONUNBUFFERED": ""}
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=buffered
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "")
