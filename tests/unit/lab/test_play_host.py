"""An outside program plays; whatever it does, the game ends and nothing is left running."""

import os
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from engine.errors import UsageError
from lab.host import play
from lab.play_host import CommandPolicy, Limits
from lab.tally import Result
from tests.unit.lab.cases import case_of, tiny

QUICK = Limits(step=0.3, init=0.3, whole=20, leave=0.3)
HEAD = """
import json, os, sys, time
def say(answer): print(json.dumps(answer), flush=True)
def order(step): return {"type": "order", "step": step, "targets": {"web": {"A": 4}}}
for line in sys.stdin:
    m = json.loads(line)
"""
PLAYS = """
    if m["type"] == "init": say({"type": "ready"})
    elif m["type"] == "observe": say(order(m["step"]))
    else: open(sys.argv[1], "w").write(line); break
"""


def played(tmp_path: Path, body: str, limits: Limits = QUICK, head: str = HEAD) -> Result:
    program = tmp_path / "policy.py"
    program.write_text(head + body, encoding="utf-8")
    with CommandPolicy(f"{sys.executable} {program} {tmp_path / 'end'}", limits) as policy:
        return play(case_of(tiny()), policy, on_end=policy.end)


PATIENT = Limits(step=10, init=20, whole=60, leave=5)


def test_a_program_plays_the_whole_game_and_hears_the_end(tmp_path: Path) -> None:
    result = played(tmp_path, PLAYS, PATIENT)
    assert (result.late, result.malformed) == (0, 0)
    assert result.bought == ((8, 8, 8, 8),)
    assert (tmp_path / "end").read_text(
        encoding="utf-8"
    ).strip() == '{"type":"end","cost":"1.600000000","shortfall_rate":0.0}'


def test_the_program_of_the_rules_plays_too(tmp_path: Path) -> None:
    text = (Path(__file__).parent / "quarter_more.py").read_text(encoding="utf-8")
    result = played(tmp_path, text, PATIENT, head="")
    assert (result.late, result.malformed) == (0, 0)
    assert result.shortfall_rate == 0


def test_nonsense_is_malformed_and_the_previous_order_stands(tmp_path: Path) -> None:
    body = """
    if m["type"] == "init": say({"type": "ready"})
    elif m["type"] == "observe" and m["step"] != 1: say(order(m["step"]))
    elif m["type"] == "observe": print("[" * 100000, flush=True)
    else: break
"""
    result = played(tmp_path, body, PATIENT)
    assert (result.late, result.malformed) == (0, 1)
    assert result.bought == ((8, 8, 8, 8),)


def test_a_dead_program_plays_on_with_its_last_order(tmp_path: Path) -> None:
    body = """
    if m["type"] == "init": say({"type": "ready"})
    elif m["step"] == 0: os._exit(1)
    else: say(order(m["step"]))
"""
    result = played(tmp_path, body, PATIENT)
    assert (result.late, result.bought) == (3, ((8, 8, 8, 8),))


def test_a_program_that_never_answers_nor_leaves_is_killed(tmp_path: Path) -> None:
    body = """
    open(sys.argv[1], "w").write(str(os.getpid()))
    say({"type": "ready"})
    while True: time.sleep(60)
"""
    result = played(tmp_path, body, Limits(step=0.01, init=20, whole=60, leave=0.01))
    assert result.late == 4
    pid = int((tmp_path / "end").read_text(encoding="utf-8"))
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_an_answer_that_comes_after_all_is_thrown_away(tmp_path: Path) -> None:
    """The program stays silent at step 0 and answers it, then step 1, when it hears step 1."""
    body = """
    if m["type"] == "init": say({"type": "ready"})
    elif m["type"] == "end": break
    elif m["step"] == 0: pass
    elif m["step"] == 1:
        say({"type": "order", "step": 0, "targets": {}})
        say(order(1))
    else: say(order(m["step"]))
"""
    result = played(tmp_path, body, Limits(step=0.5, init=20, whole=60, leave=5))
    assert (result.late, result.malformed) == (1, 0)
    assert result.bought == ((8, 8, 8, 8),)


def test_the_whole_game_is_bounded(tmp_path: Path) -> None:
    body = """
    if m["type"] == "init": say({"type": "ready"})
"""
    result = played(tmp_path, body, Limits(step=60, init=60, whole=0.5, leave=0.1))
    assert result.late >= 4


def test_a_program_that_does_not_read_stops_nothing(tmp_path: Path) -> None:
    result = played(
        tmp_path, "", Limits(step=0.01, init=0.01, whole=5, leave=0.01), head="import time\ntime.sleep(60)\n"
    )
    assert result.late == 5


def test_a_flood_is_bounded(tmp_path: Path) -> None:
    with suppress(BrokenPipeError):
        result = played(tmp_path, "", QUICK, head="import os\nwhile True: os.write(1, b'x' * 65536)\n")
        assert result.late + result.malformed == 5


def test_a_command_that_is_none_is_told() -> None:
    for command in ("", "no-such-program-anywhere", "'unclosed"):
        with pytest.raises(UsageError, match="cannot be started"), CommandPolicy(command):
            pass
