from datetime import timedelta

import pytest

from engine.market.observations import Answer, AnswerKind, Stay, history_of
from engine.model.ids import CellId, NodeId
from engine.model.market import OwnHistory, Place, PurchaseOption
from tests.unit.engine.market.counterparties import NOW

PLACE = Place(CellId("p/a/r"), "z", "t.small", PurchaseOption.SPOT)


def an_answer(kind: AnswerKind, *, denied: int = 0, held: int = 0) -> Answer:
    return Answer(event="e", place=PLACE, kind=kind, at=NOW, asked=denied + held, denied=denied, held=held)


@pytest.mark.parametrize(
    ("answer", "limits", "depth", "told"),
    [
        (an_answer(AnswerKind.HOLD, denied=2, held=1), True, 1, "denied 2 of 3 at 12:00"),
        (an_answer(AnswerKind.CREATE, held=3), False, 3, "denied 0 of 3 at 12:00"),
        (an_answer(AnswerKind.QUOTE, denied=6), True, 2, "no quote for 6 at 12:00"),
        (an_answer(AnswerKind.RECLAIM, held=1), True, 1, "taken back at 12:00"),
    ],
)
def test_what_an_answer_says(answer: Answer, limits: bool, depth: int, told: str) -> None:
    assert (answer.limits, answer.depth, answer.told(NOW)) == (limits, depth, told)


def test_an_answer_of_another_day_names_it() -> None:
    denied = an_answer(AnswerKind.HOLD, denied=1)
    assert denied.told(NOW + timedelta(days=1)) == "denied 1 of 1 at 2026-03-01 12:00"


def test_a_history_adds_up_stays() -> None:
    stays = [
        Stay(node=NodeId(str(hours)), place=PLACE, correlation_group="g", since=NOW, until=NOW + timedelta(hours=hours),
             reclaimed=hours > 1)
        for hours in (1, 2, 3)
    ]  # fmt: skip
    assert history_of(stays) == OwnHistory(reclaims=2, node_hours=6.0)
    assert str(history_of(stays)) == "2 taken back in 6 node-hours"
