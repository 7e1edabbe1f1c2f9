"""``shardwright lab play``: answers on stdout, all else on stderr."""

import io
import json
import sys

import pytest

from engine.errors import UsageError
from lab.game import Game
from lab.host import play
from lab.play_host import CommandPolicy
from lab.policies.registry import policy_of
from lab.wire import Observe, read_order, read_ready
from tests.command import EXECUTABLE, InProcess
from tests.unit.lab.cases import case_of, tiny

INIT = Game(case_of(tiny())).init().line()
OBSERVE = Observe(step=-1).line()
END = '{"type":"end","cost":"1.06","shortfall_rate":0.04}'


def fed(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(line + "\n" for line in lines)))


def test_a_real_process_plays_as_the_policy_does_here() -> None:
    with CommandPolicy(f"{EXECUTABLE} lab play") as policy:
        outside = play(case_of(tiny()), policy, on_end=policy.end, name="same")
    assert (outside.malformed, outside.late) == (0, 0)
    assert outside == play(case_of(tiny()), policy_of("shardwright"), name="same")


def test_stdout_holds_answers_only(command: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    fed(monkeypatch, INIT, OBSERVE, END)
    told = command("lab", "play")
    assert told.code == 0, told.err
    ready, order = told.out.splitlines()
    assert read_ready(ready)
    assert json.loads(order) == read_order(order).model_dump(mode="json")  # type: ignore[union-attr]
    assert "cost 1.06, short 4.000%" in told.err


def test_another_policy_may_answer(command: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    fed(monkeypatch, INIT, OBSERVE, END)
    told = command("lab", "play", "--policy", "reactive")
    assert (told.code, len(told.out.splitlines())) == (0, 2)


def test_an_input_that_ends_early_is_told(command: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    fed(monkeypatch, INIT, OBSERVE)
    told = command("lab", "play")
    assert told.code == 0
    assert "cut off before its end" in told.err
    assert len(told.out.splitlines()) == 2


def test_what_is_no_game_is_refused(command: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    fed(monkeypatch, "hello")
    command("lab", "play").refused(UsageError.exit_code, "line 1 is no message of the capacity game")
    fed(monkeypatch, OBSERVE)
    command("lab", "play").refused(2, "before it began")
    fed(monkeypatch, INIT)
    command("lab", "play", "--policy", "shardwrite").refused(2, "did you mean 'shardwright'?")


def test_a_bad_line_in_the_middle_ends_the_game_after_what_was_answered(
    command: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    fed(monkeypatch, INIT, OBSERVE, "{")
    told = command("lab", "play")
    assert told.code == 2
    assert "line 3" in told.err
    assert [json.loads(line)["type"] for line in told.out.splitlines()] == ["ready", "order"]
