"""How the command looks: in a terminal, without colours, and piped."""

import io
import os
import pty
import subprocess
from decimal import Decimal
from pathlib import Path

import pytest
from rich.console import Console

from engine.cli.console import changing_line, err, harmless, json_list, named, out, plain, print_json, table
from engine.demo.show import PlainShow, open_show
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


HOSTILE = ("[/x]", "cpu[web]", "shop:key:x", "[bold]b[/]")


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_is_markup_or_an_emoji(capsys: pytest.CaptureFixture[str], name: str) -> None:
    out().print(name)
    err().print(name)
    plain(err())(name)
    out().print(table(f"title {name}", (f"column {name}",), [(f"cell {name}",)]))
    Console().print(table("", ("",), [(f"elsewhere {name}",)]))
    told = capsys.readouterr()
    assert told.err.splitlines() == [name, name]
    for shown in (name, f"title {name}", f"column {name}", f"cell {name}", f"elsewhere {name}"):
        assert shown in told.out


def test_a_terminal_is_shown_what_would_steer_it() -> None:
    assert harmless("a\x1b[31mb\x9bc\rd\u202ee\ud800") == "a�[31mb�c�d�e�"
    assert harmless("Zürich\tübers Eck\n東京 👩\u200d💻 שלום") == "Zürich\tübers Eck\n東京 👩\u200d💻 שלום"


def test_a_list_that_grows_is_the_same_document(capsys: pytest.CaptureFixture[str]) -> None:
    things = [usd(Decimal("0.10")), {"text": 'a\n"b" {'}]
    print_json("things", things)
    whole = capsys.readouterr().out
    with json_list("things") as add:
        for thing in things:
            add(thing)
    assert capsys.readouterr().out == whole
    with json_list("things"):
        pass
    assert capsys.readouterr().out == ""


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_changes_only_where_the_screen_may_be_drawn_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr("sys.stderr", screen := _Terminal())
    with changing_line(err(), "[/x] waits") as change:
        assert change is not None
        change("[/y] waits")
    assert "\x1b" in screen.getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr("sys.stderr", screen := _Terminal())
    with changing_line(err(), "waits") as change:
        assert change is None
    assert isinstance(open_show(), PlainShow)
    assert screen.getvalue() == ""
