"""The memory of the market on each kind of database: what is told twice counts once, and what is old is forgotten."""

from datetime import UTC, datetime, timedelta

import pytest

from engine.market.observations import Answer, AnswerKind, Stay
from engine.model.ids import CellId, NodeId
from engine.model.market import Place, PurchaseOption
from engine.store.database import Database
from engine.store.market_memory import MarketMemory

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
HERE = Place(CellId("aws/1/us-east-1"), "us-east-1a", "m7i.large", PurchaseOption.SPOT)
THERE = Place(CellId("aws/1/us-east-1"), "us-east-1b", "m7i.large", PurchaseOption.SPOT)


@pytest.fixture
def memory(store: Database) -> MarketMemory:
    return MarketMemory(store)


def answer(event: str = "create:plan-1:grow", place: Place = HERE, *, denied: int = 2, hours_ago: float = 0) -> Answer:
    return Answer(
        event=event, place=place, kind=AnswerKind.CREATE, at=NOW - timedelta(hours=hours_ago), asked=3, denied=denied,
        held=3 - denied, denied_nodes=tuple(NodeId(f"n{number}") for number in range(denied)),
    )  # fmt: skip


def stay(node: str = "n1", *, since: float = 0, until: float = 0, reclaimed: bool = False) -> Stay:
    """``since``, ``until``: hours after NOW."""
    return Stay(
        node=NodeId(node), place=HERE, correlation_group="g", since=NOW + timedelta(hours=since),
        until=NOW + timedelta(hours=until), reclaimed=reclaimed,
    )  # fmt: skip


def test_answers_come_back_as_they_were_oldest_first(memory: MarketMemory) -> None:
    told = [answer(), answer("quote:round-1", hours_ago=2), answer(place=THERE, denied=0, hours_ago=1)]
    memory.answered(told)
    memory.answered([])
    assert memory.answers(since=NOW - timedelta(days=1)) == (told[1], told[2], told[0])
    assert memory.answers(since=NOW - timedelta(hours=1)) == (told[2], told[0])


def test_the_same_event_at_the_same_place_counts_once_as_it_was_told_last(memory: MarketMemory) -> None:
    for told in (answer(), answer(), answer(denied=0)):
        memory.answered([told])
    assert memory.answers(since=NOW) == (answer(denied=0),)


def test_a_stay_grows_and_a_reclaim_ends_it_for_good(memory: MarketMemory) -> None:
    memory.stayed([stay(), stay("n2")])
    memory.stayed([stay(since=2, until=2)])
    assert memory.stays() == (stay(until=2), stay("n2"))
    memory.stayed([stay(since=3, until=3, reclaimed=True)])
    memory.stayed([stay(since=1, until=1)])
    assert memory.stays()[0] == stay(until=3, reclaimed=True)


def test_what_is_old_is_forgotten(memory: MarketMemory) -> None:
    memory.answered([answer(), answer("hold:plan-0", hours_ago=3)])
    memory.stayed([stay(since=-9, until=-3), stay("n2", since=-9, until=-1)])
    assert memory.forget(before=NOW - timedelta(hours=2)) == 2
    assert memory.forget(before=NOW - timedelta(hours=2)) == 0
    assert [one.event for one in memory.answers(since=NOW - timedelta(days=1))] == ["create:plan-1:grow"]
    assert [one.node for one in memory.stays()] == ["n2"]
