"""The agent's half of run leases: asks the control plane which shards may run, and tells the watchdog until when.

No lease is renewed while no watchdog enforces them: the agent stops the guests itself then, as theirs run out.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping

from agent.guest import GuestRecord
from agent.node_guest import Guest
from agent.shards import ShardHost
from agent.watchdog import Lease, boottime
from agent.watching import Watch
from agent.wire import HeldShard, LeaseGrant
from engine.errors import ShardwrightError
from engine.model.ids import ShardId

RENEWALS_PER_LEASE = 4
_LOG = logging.getLogger("agent.leases")
Ask = Callable[[tuple[HeldShard, ...]], Awaitable[LeaseGrant]]


class LeaseKeeper:
    """Files under ``work/leases``; ``seconds`` is how long the control plane's grants are good for."""

    def __init__(self, host: ShardHost, ask: Ask, seconds: float) -> None:
        self._host, self._ask, self._seconds = host, ask, seconds
        self.folder = host.config.work / "leases"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._watch = Watch(self.folder, host.config.work / "watchdog.log")

    async def keep(self) -> None:
        """Until cancelled."""
        last_problem = ""
        while True:
            try:
                await self.renew()
                last_problem = ""
            except ShardwrightError as problem:
                if str(problem) != last_problem:
                    _LOG.warning("cannot renew run leases: %s", problem)
                last_problem = str(problem)
            await self._watch.rest(self._seconds / RENEWALS_PER_LEASE)

    async def renew(self) -> None:
        """One round. A guest that waits for a move, or was given away, needs no lease: it does not run.

        Raises MissingPart where no watchdog can be had, and what the asking raises.
        """
        running = {shard: one for shard, one in self._host.guests.items() if runs_here(one.record)}
        try:
            self._grant_first(running)  # without any lease a guest would never be stopped
        finally:
            await self._watch.require()
        if running:
            await self._extend(running)

    def _grant_first(self, running: Mapping[ShardId, Guest]) -> None:
        for file in self.folder.glob("[!.]*"):
            if file.name not in running:
                file.unlink(missing_ok=True)
        for one in running.values():
            if self._holder(one.record.shard) != (one.record.pid, one.record.start_ticks):
                self._write(one, boottime())  # the command that made this process run was its first grant

    async def _extend(self, running: Mapping[ShardId, Guest]) -> None:
        began = boottime()  # before it is asked: the answer's way counts against us
        held = tuple(HeldShard(shard=shard, epoch=self._host.epochs.get(shard)) for shard in running)
        granted = (await self._ask(held)).shards
        for shard in granted:
            if shard in running:
                self._write(running[shard], began)
        if refused := [shard for shard in running if shard not in granted]:
            _LOG.warning("may not run any longer: %s", ", ".join(refused))

    def _holder(self, shard: ShardId) -> tuple[int, int] | None:
        """The process that the lease is for; None: there is none that can be read."""
        try:
            lease = Lease.read((self.folder / shard).read_text())
        except (OSError, ValueError):
            return None
        return lease.pid, lease.start_ticks

    def _write(self, one: Guest, since: float) -> None:
        record = one.record
        lease = Lease(since + self._seconds, record.pid, record.start_ticks)
        draft = self.folder / f".{record.shard}.new"
        draft.write_text(lease.written())
        draft.rename(self.folder / record.shard)


def runs_here(record: GuestRecord) -> bool:
    return record.pid > 0 and record.lives_here
