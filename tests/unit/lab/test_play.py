"""A policy of ours in somebody else's game: lines in, lines out."""

import json
from collections.abc import Iterator

import pytest

from engine.errors import UsageError
from lab.game import Game
from lab.play import play_messages
from lab.policies.registry import policy_of
from lab.wire import End, Observe
from tests.unit.lab.cases import Scripted, case_of, tiny

ORDER = {"targets": {"web": {"A": 4}}}
INIT = Game(case_of(tiny())).init().line()
OBSERVE = Observe(step=-1).line()
END = '{"type":"end","cost":"1.06","shortfall_rate":0.04}'


def said(*lines: str) -> tuple[End | None, list[str]]:
    answers: list[str] = []
    return play_messages(lines, Scripted(ORDER), answers.append), answers


def test_every_message_is_answered_until_the_end() -> None:
    end, answers = said(INIT, OBSERVE, END)
    assert end == End(cost="1.06", shortfall_rate=0.04)  # type: ignore[arg-type]
    assert [json.loads(answer)["type"] for answer in answers] == ["ready", "order"]
    assert json.loads(answers[1])["targets"] == ORDER["targets"]


def test_answers_are_one_line_each() -> None:
    assert not any("\n" in answer for answer in said(INIT, OBSERVE)[1])


def test_an_answer_is_said_before_the_next_line_is_read() -> None:
    """The host waits for it: reading ahead would stop the game."""
    answers: list[str] = []

    def lines() -> Iterator[str]:
        yield INIT
        assert len(answers) == 1
        yield OBSERVE
        assert len(answers) == 2
        yield END

    assert play_messages(lines(), Scripted(ORDER), answers.append) is not None


def test_nothing_is_read_after_the_end() -> None:
    assert said(INIT, END, "not a message at all")[0] is not None


def test_a_game_that_is_cut_off_has_no_end() -> None:
    assert said(INIT, OBSERVE) == (None, said(INIT, OBSERVE)[1])
    assert said() == (None, [])


def test_empty_lines_are_passed_over() -> None:
    assert len(said("\n", INIT, "", "   \n", OBSERVE)[1]) == 2


def test_fields_that_another_host_adds_are_ignored() -> None:
    assert said(json.dumps({**json.loads(INIT), "weather": "fine"}))[1] == ['{"type":"ready"}']


@pytest.mark.parametrize(
    "line",
    ["hello", "{", "[]", "7", '{"type":"order","step":0}', '{"type":"init"}', '{"type":"observe"}', "[" * 100_000],
)
def test_a_line_that_is_no_message_is_told_with_its_number(line: str) -> None:
    with pytest.raises(UsageError, match="line 2 is no message") as caught:
        said(INIT, line)
    assert caught.value.why
    assert caught.value.next_step
    assert len(str(caught.value.why)) < 300


def test_an_observation_before_the_game_began_is_refused() -> None:
    with pytest.raises(UsageError, match="before it began"):
        said(OBSERVE)


def test_a_second_game_begins_anew() -> None:
    """The same lines, the same answers: nothing of the first game is left."""
    answers: list[str] = []
    play_messages([INIT, OBSERVE, INIT, OBSERVE], policy_of("shardwright"), answers.append)
    assert answers[:2] == answers[2:]
