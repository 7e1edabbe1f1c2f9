"""The agent checks its own guests and tells the control plane, which answers with what to check.

The node looks, because it is beside the guest: no guest has to be reachable from the control plane, and a network that
is cut between the two does not make a guest ill. The orders stay when the control plane is away.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from agent import network
from agent.monitor import GuestRefused
from agent.node_guest import Guest
from agent.probe_port import PortAnswer, probe_port, usable
from agent.shards import ShardHost
from agent.wire import GuestState, HealthOrders, HealthRequest, ReportedHealth
from engine.errors import ShardwrightError
from engine.model.composite import HealthCheck, HealthState
from engine.model.ids import ShardId
from engine.model.value import Value

TICK_SECONDS = 0.5
_MOST_TOLD = 500
"""As many as a request may hold."""
REPORT_SECONDS = 10.0
"""A change of state is told at the next tick; a node without shards has nothing to tell."""
_LOG = logging.getLogger("agent.health")
Ask = Callable[[HealthRequest], Awaitable[HealthOrders]]
Probe = Callable[[Guest, HealthCheck], Awaitable[PortAnswer]]
Beside = Callable[[], tuple[ReportedHealth, ...]]


class Tally(Value):
    """What the checks of one shard have come to."""

    state: HealthState = HealthState.UNKNOWN
    passes: int = 0
    failures: int = 0
    reason: str = ""
    """Of the last failure."""


def counted(tally: Tally, answer: PortAnswer, check: HealthCheck) -> Tally:
    """After one more answer: ``rise`` passes in a row make a shard healthy, ``fall`` failures in a row unhealthy."""
    if answer.open:
        passes = tally.passes + 1
        healed = passes >= check.rise or tally.state is HealthState.HEALTHY
        state = HealthState.HEALTHY if healed else tally.state
        return Tally(state=state, passes=passes, reason="" if healed else tally.reason)
    failures = tally.failures + 1
    state = HealthState.UNHEALTHY if failures >= check.fall else tally.state
    return Tally(state=state, failures=failures, reason=answer.reason)


async def probe_guest(guest: Guest, check: HealthCheck) -> PortAnswer:
    """Its process, its virtual CPUs, and its port where the guest has a tap of its own.

    In QEMU's own network the port cannot be told from QEMU's, which takes every connection itself: there the guest
    counts as well as long as it runs.
    """
    state = await guest.state()
    if state is not GuestState.RUNNING:
        return PortAnswer(open=False, reason=f"the guest is {state}")
    record = guest.record
    if record.tap is None or not usable():
        return PortAnswer(open=True)
    try:
        return await asyncio.to_thread(
            probe_port, record.tap, network.own_bridge(record.tap), record.mac, record.address, check.port,
            check.timeout_seconds,
        )  # fmt: skip
    except OSError as problem:
        return PortAnswer(open=False, reason=f"its network cannot be asked: {problem.strerror}")


class HealthKeeper:
    """``beside``: what else of this node is reported; ``monotonic`` tells seconds."""

    def __init__(
        self,
        host: ShardHost,
        ask: Ask,
        *,
        beside: Beside = tuple,
        probe: Probe = probe_guest,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._host, self._ask, self._beside = host, ask, beside
        self._probe, self._monotonic = probe, monotonic
        self._checks: dict[ShardId, HealthCheck] = {}
        self._tallies: dict[ShardId, Tally] = {}
        self._due: dict[ShardId, float] = {}
        self._checking: dict[ShardId, asyncio.Task[None]] = {}
        self._told: tuple[ReportedHealth, ...] | None = None
        self._told_at = float("-inf")
        self._last_problem = ""

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                await self.tick()
                await asyncio.sleep(TICK_SECONDS)
        finally:
            for task in self._checking.values():
                task.cancel()
            self._checking.clear()

    async def tick(self) -> None:
        """Check what is due, and report when something has changed or it is time. A slow check holds nothing up."""
        now = self._monotonic()
        for shard in self._here():
            if shard in self._checks and shard not in self._checking and self._due.get(shard, now) <= now:
                self._checking[shard] = asyncio.create_task(self._check(shard, now))
        await self._collect()
        report = self._report()
        waited = now - self._told_at
        if waited < (REPORT_SECONDS if report == self._told else TICK_SECONDS) or not (report or self._told):
            return
        self._told_at = now
        try:
            orders = await self._ask(HealthRequest(shards=report))
        except ShardwrightError as problem:
            if str(problem) != self._last_problem:
                _LOG.warning("cannot report health: %s", problem)
            self._last_problem, self._told = str(problem), report
            return
        self._last_problem, self._told = "", report
        self._obey(orders)

    async def _collect(self) -> None:
        """Wait a moment for the checks that run."""
        if self._checking:
            await asyncio.wait(self._checking.values(), timeout=TICK_SECONDS)
        done = [shard for shard, task in self._checking.items() if task.done()]
        for shard in done:
            problem = self._checking.pop(shard).exception()
            if problem is not None:
                _LOG.error("shard %s could not be checked", shard, exc_info=problem)

    def _here(self) -> list[ShardId]:
        """Those that live here: what waits for a move, or was given away, is another node's to tell of."""
        return [shard for shard, one in self._host.guests.items() if one.record.lives_here]

    async def _check(self, shard: ShardId, now: float) -> None:
        check, guest = self._checks[shard], self._host.guests.get(shard)
        self._due[shard] = now + check.interval_seconds
        if guest is None or (guest.record.move is not None and guest.busy.locked()):
            return  # in a switchover: paused for a moment, and not ill
        before = self._tallies.get(shard, Tally())
        try:
            answer = await self._probe(guest, check)
        except (ShardwrightError, GuestRefused) as problem:
            answer = PortAnswer(open=False, reason=f"the guest cannot be asked: {problem}")
        after = self._tallies[shard] = counted(before, answer, check)
        if after.state is not before.state:
            _LOG.info("shard %s is %s%s", shard, after.state, f": {after.reason}" if after.reason else "")

    def _report(self) -> tuple[ReportedHealth, ...]:
        here = self._here()
        for shard in [one for one in self._tallies if one not in here]:
            del self._tallies[shard]
        found = [
            ReportedHealth(
                shard=shard,
                epoch=self._host.epochs.get(shard),
                state=tally.state,
                reason=tally.reason if tally.state is HealthState.UNHEALTHY else "",
            )
            for shard in here
            for tally in (self._tallies.get(shard, Tally()),)
        ]
        return (*found, *self._beside())[:_MOST_TOLD]

    def _obey(self, orders: HealthOrders) -> None:
        self._checks = {one.shard: one.check for one in orders.checks}
        for shard in [one for one in self._tallies if one not in self._checks]:
            del self._tallies[shard]
