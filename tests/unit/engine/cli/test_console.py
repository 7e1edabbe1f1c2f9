"""How the command looks: in a terminal, without colours, and piped."""

import os
import pty
import subprocess
from decimal import Decimal
from pathlib import Path

import pytest

from engine.cli.console import named, print_json
from engine.model.money import usd
from tests.command import EXECUTABLE


def in_a_terminal(*arguments: str, environment: dict[str, str]) -> str:
    """What a terminal is told on stdout."""
    ours, theirs = pty.openpty()
    plain = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR")}
    with subprocess.Popen(
        [str(EXECUTABLE), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env={**plain, "TERM": "xterm-256color", "COLUMNS": "100", **environment},
    ) as process:
        os.close(theirs)
        said = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # Linux says EIO once the other side is closed
                break
            if not part:
                break
            said += part
        process.wait(timeout=60)
    os.close(ours)
    return said.decode()


MISSING = ("config", "check", "--config", "/nonexistent.toml")


def test_a_terminal_gets_colours() -> None:
    assert "\x1b[" in in_a_terminal(*MISSING, environment={})


@pytest.mark.parametrize(("first", "environment"), [((), {"NO_COLOR": "1"}), (("--no-color",), {})])
def test_no_colour_means_no_escapes_at_all(first: tuple[str, ...], environment: dict[str, str]) -> None:
    said = in_a_terminal(*first, *MISSING, environment=environment)
    assert "error: cannot read /nonexistent.toml" in said
    assert "\x1b" not in said


def test_piped_there_are_no_escapes(tmp_path: Path) -> None:
    done = subprocess.run([str(EXECUTABLE), *MISSING], capture_output=True, text=True, check=False)
    assert "\x1b" not in done.stderr + done.stdout


def test_json_carries_its_version_and_exact_money(capsys: pytest.CaptureFixture[str]) -> None:
    print_json("things", [usd(Decimal("0.10"))])
    assert capsys.readouterr().out == (
        '{\n  "schema_version": 1,\n  "kind": "things",\n  "data": [\n    {\n      "amount": "0.10",\n'
        '      "currency": "USD"\n    }\n  ]\n}\n'
    )


def test_a_provider_is_named_once() -> None:
    assert named("aws", "aws: down") == "aws: down"
    assert named("harbor", "GET /v1/offers: 503") == "harbor: GET /v1/offers: 503"
