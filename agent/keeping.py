"""A guest that a move has left paused runs again by itself, where the store says that it is still this node's.

The store is asked, never guessed: its answer ends the move by raising the epoch, so a controller that comes back late
cannot give the shard away any more. Without an answer the guest stays paused; somebody else may run it. Only a commit
that the agent had been told of, and died over, is finished without asking.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from agent import fences, guest
from agent.monitor import GuestRefused
from agent.moves import MoveAgent
from agent.node_guest import Guest
from agent.shards import ShardHost
from agent.wire import KeepRequest, MoveCommand, Verdict
from engine.errors import NotFound, ShardwrightError
from engine.model.ids import ShardId

EVERY_SECONDS = 2.0
_LOG = logging.getLogger("agent.keeping")
Ask = Callable[[ShardId, KeepRequest], Awaitable[Verdict]]
"""Raises ShardwrightError when there is no answer."""


class Keeper:
    """Looks at every guest of the node; ``monotonic`` tells seconds."""

    def __init__(
        self, host: ShardHost, moves: MoveAgent, ask: Ask, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._host, self._moves, self._ask, self._monotonic = host, moves, ask, monotonic

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(EVERY_SECONDS)

    async def look(self) -> None:
        """Once over all guests. What goes wrong with one is logged and tried again next time."""
        for shard, here in list(self._host.guests.items()):
            if not here.busy.locked() and guest.cut_console(here.run):  # a boot or a measurement reads it
                _LOG.warning("shard %s has written too much on its console: it is emptied", shard)
            in_question = here.record.move is not None or here.record.committing
            if not in_question or here.record.incoming or here.busy.locked() or not here.alive:
                continue
            try:
                await self._look_at(shard, here)
            except (ShardwrightError, GuestRefused) as problem:
                _LOG.warning("shard %s is left as it is: %s", shard, problem)

    async def _look_at(self, shard: ShardId, here: Guest) -> None:
        if fences.must_finish(here.record):
            await self._moves.destination.finish_commit(here)
            return
        async with here.busy:
            await self._moves.source.stop_given_away(here)
        running = bool((await here.monitor.execute("query-status"))["running"])
        move, unheard = here.record.move, self._monotonic() - here.heard
        if move is None or not fences.must_ask(here.record, running=running, unheard_seconds=unheard):
            return
        verdict = await self._ask(shard, KeepRequest(move=move, epoch=self._host.epochs.get(shard)))
        if not fences.may_run_on(here.record, move, verdict):
            _LOG.info("shard %s stays paused: the store has it elsewhere, at epoch %d", shard, verdict.epoch)
            return
        _LOG.warning("move %s has left shard %s paused: it runs on here at epoch %d", move, shard, verdict.epoch)
        try:
            await self._moves.source.resume(shard, MoveCommand(move=move, epoch=verdict.epoch))
        except NotFound:
            _LOG.warning("the guest of shard %s has died meanwhile", shard)
