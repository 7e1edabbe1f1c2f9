"""Whose commands an end of a move obeys, and when they are judged."""

import asyncio

import pytest

from agent.config import AgentConfig
from agent.wire import (
    TuneRequest,
)
from engine.errors import ConcurrentUpdate, StaleEpoch
from tests.unit.agent.test_moves import (
    MOVE,
    S1,
    Leave,
    ScriptedMonitor,
    agent,
    command,
)


def test_a_command_of_an_ended_move_comes_too_late(config: AgentConfig, left_behind: Leave) -> None:
    left_behind(move="m1", sent_for="m1")
    monitor = ScriptedMonitor(migration="active", jobs=1)
    moves, _ = agent(config, monitor)
    asyncio.run(moves.source.resume(S1, command(2)))
    late = TuneRequest(move=MOVE, epoch=1, stop_guest=True)
    for act in (moves.source.tune(S1, late), moves.source.tune(S1, late.model_copy(update={"epoch": 2}))):
        with pytest.raises((StaleEpoch, ConcurrentUpdate)):
            asyncio.run(act)
    assert monitor.running


def test_a_command_that_had_to_wait_is_judged_when_its_turn_comes(config: AgentConfig, left_behind: Leave) -> None:
    left_behind(move="m1", sent_for="m1")
    monitor = ScriptedMonitor(migration="active", jobs=1)
    moves, host = agent(config, monitor)

    async def overtaken() -> None:
        here = host.guests[S1]
        await here.busy.acquire()
        late = asyncio.create_task(moves.source.tune(S1, TuneRequest(move=MOVE, epoch=1, stop_guest=True)))
        await asyncio.sleep(0)
        host.epochs.accept(S1, 2)
        here.busy.release()
        await late

    with pytest.raises(StaleEpoch):
        asyncio.run(overtaken())
    assert monitor.running
