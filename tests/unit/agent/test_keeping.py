"""The source's own keeper over a QEMU that is a script; the store's answers are given."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from agent import guest
from agent.config import AgentConfig
from agent.fences import UNHEARD_SECONDS
from agent.guest import GuestRecord
from agent.keeping import Keeper
from agent.moves import MoveAgent
from agent.shards import ShardHost
from agent.wire import KeepRequest, MoveCommand, Verdict
from engine.errors import ProviderUnavailable
from engine.model.ids import MoveId, ShardId
from tests.unit.agent.test_moves import S1, ScriptedMonitor

Leave = Callable[..., GuestRecord]


class Post:
    """A guest that a move has left, its agent, and a store that answers what it is told to; None: it is silent."""

    def __init__(self, config: AgentConfig, monitor: ScriptedMonitor, answer: Verdict | None) -> None:
        self.host = ShardHost(config)
        self.host.guests[S1].monitor = monitor  # type: ignore[assignment]
        self.host.epochs.accept(S1, 1)
        self.moves = MoveAgent(self.host, config)
        self.asked: list[KeepRequest] = []
        self.answer = answer
        self.later = UNHEARD_SECONDS + 1
        self.keeper = Keeper(
            self.host, self.moves, self._ask, monotonic=lambda: self.host.guests[S1].heard + self.later
        )

    async def _ask(self, _shard: ShardId, request: KeepRequest) -> Verdict:
        self.asked.append(request)
        if self.answer is None:
            raise ProviderUnavailable("nobody there")
        return self.answer

    def look(self) -> None:
        asyncio.run(self.keeper.look())


@pytest.fixture
def paused() -> ScriptedMonitor:
    return ScriptedMonitor(migration="pre-switchover", running=False)


def test_a_guest_left_paused_runs_on_once_the_store_has_ended_the_move(
    config: AgentConfig, left_behind: Leave, paused: ScriptedMonitor
) -> None:
    left_behind(move="m1")
    post = Post(config, paused, Verdict(yours=True, epoch=2))
    post.look()
    assert post.asked == [KeepRequest(move=MoveId("m1"), epoch=1)]
    assert (paused.running, paused.migration) == (True, "cancelled")
    assert (post.host.epochs.get(S1), post.host.guests[S1].record.move) == (2, None)


@pytest.mark.parametrize("answer", [None, Verdict(yours=False, epoch=2)])
def test_without_a_yes_it_stays_paused(
    config: AgentConfig, left_behind: Leave, paused: ScriptedMonitor, answer: Verdict | None
) -> None:
    left_behind(move="m1")
    post = Post(config, paused, answer)
    for _ in range(2):
        post.look()
    assert len(post.asked) == 2
    assert not paused.running


def test_nobody_is_asked_while_the_move_is_driven(
    config: AgentConfig, left_behind: Leave, paused: ScriptedMonitor
) -> None:
    left_behind(move="m1")
    post = Post(config, paused, Verdict(yours=True, epoch=2))
    post.later = UNHEARD_SECONDS - 1
    post.look()
    assert post.asked == []


def test_an_answer_that_comes_too_late_is_not_acted_upon(
    config: AgentConfig, left_behind: Leave, paused: ScriptedMonitor
) -> None:
    left_behind(move="m1")
    post = Post(config, paused, Verdict(yours=True, epoch=2))

    async def overtaken(_shard: ShardId, _request: KeepRequest) -> Verdict:
        await post.moves.source.proceed(S1, MoveCommand(move=MoveId("m1"), epoch=3))
        return Verdict(yours=True, epoch=2)

    paused.migration = "failed"
    post.keeper._ask = overtaken
    post.look()
    assert not paused.running
    assert post.host.guests[S1].record.ceded_epoch == 3


@pytest.mark.parametrize("left", [{"ceded_epoch": 2}, {"handing_over": True}])
def test_a_guest_that_was_given_away_or_may_be_is_stopped_at_the_first_look(
    config: AgentConfig, left_behind: Leave, left: dict[str, Any]
) -> None:
    left_behind(move="m1", **left)
    monitor = ScriptedMonitor(migration="failed", running=True)
    post = Post(config, monitor, None)
    post.later = 0.0
    post.look()
    assert not monitor.running


def test_a_commit_that_an_agent_died_over_is_finished_once_and_unasked(config: AgentConfig, left_behind: Leave) -> None:
    left_behind(committing=True)
    monitor = ScriptedMonitor(migration="completed", running=False)
    post = Post(config, monitor, None)
    for _ in range(2):
        post.look()
    assert monitor.running
    assert monitor.done.count("cont") == 1
    assert post.asked == []


def test_a_guest_that_has_died_or_is_in_no_move_is_left_alone(
    config: AgentConfig, left_behind: Leave, paused: ScriptedMonitor
) -> None:
    left_behind()
    post = Post(config, paused, Verdict(yours=True, epoch=2))
    post.look()
    assert (post.asked, paused.done) == ([], [])


@pytest.mark.parametrize("booting", [True, False])
def test_a_console_that_is_too_long_is_cut_but_not_under_who_reads_it(
    config: AgentConfig, left_behind: Leave, monkeypatch: pytest.MonkeyPatch, booting: bool
) -> None:
    left_behind()
    monkeypatch.setattr(guest, "MOST_CONSOLE_BYTES", 4)
    post = Post(config, ScriptedMonitor(), None)
    here = post.host.guests[S1]
    (here.run / guest.CONSOLE_LOG).write_text("much too much")

    async def look() -> None:
        if booting:
            await here.busy.acquire()
        await post.keeper.look()

    asyncio.run(look())
    assert (here.run / guest.CONSOLE_LOG).read_text() == "much too much" * booting
