"""How a guest's memory is sent under TCG: in one pass where the guest is calm, so that nothing can be lost on the way.

QEMU 7.2 loses a written page only where it collects the dirty marks of a guest that runs (see agent.memory). It does so
when the log begins (the guest is held for that), and again whenever what is left could be sent within the downtime
limit. With a limit of zero that is when nothing is left, and by then QEMU has stopped the guest: every collection finds
it standing still, and the memories need not be compared. What was written during the pass is sent while the guest
waits. So the agent looks how much that is, and gives QEMU its usual limit as soon as it is too much: then QEMU collects
as it goes, and the memories are compared. The proof is QEMU's own count of collections (``exact``).
"""

import asyncio
import time
from typing import Any

from agent import memory
from agent.monitor import poll
from agent.node_guest import Guest

DOWNTIME_LIMIT_MS = 100
_MOST_SECONDS = 0.25
"""That a guest may wait for what it wrote during its only pass: comparing memories would take as long."""
_SETUP_SECONDS = 5.0
_LOOK_EVERY_SECONDS = 0.1
ENDED = ("completed", "failed", "cancelled", "none")


def first_limit_ms(here: Guest) -> int:
    return 0 if _software(here) else DOWNTIME_LIMIT_MS


async def start(here: Guest, uri: str) -> None:
    """Under TCG the guest waits until QEMU has begun to log its writes.

    QEMU 7.2 clears every dirty mark at that moment, but tells the software CPU only when it finds newly dirty pages,
    and there are none: all are dirty. What is in the TLB by then is written without a mark until the guest flushes it.
    A guest that stands still has an empty TLB: starting the log flushes it.
    """
    hold = _software(here)
    here.first_pass = None
    if hold:
        await here.monitor.execute("stop")
    try:
        await here.monitor.execute("migrate", {"uri": uri})

        async def logging() -> bool:
            said = await here.monitor.execute("query-migrate")
            return said.get("status") in ENDED or collections(said) >= 1

        if hold:
            await poll(logging, seconds=_SETUP_SECONDS, every=0.002, what="the start of the migration")
            here.first_pass = FirstPass(here.record.pid)
    finally:
        if hold:
            await here.monitor.execute("cont")


class FirstPass:
    """What the memory was when the pass began, in samples."""

    def __init__(self, pid: int) -> None:
        self._before = memory.PageSample(pid)
        self._next_look = time.monotonic() + _LOOK_EVERY_SECONDS

    async def too_much(self, said: dict[str, Any]) -> bool:
        """Whether the guest has written more than may be sent while it waits; looks now and then only."""
        rate = float(said.get("ram", {}).get("mbps", 0.0)) * 1e6 / 8
        if time.monotonic() < self._next_look or rate <= 0:
            return False
        changed = await asyncio.to_thread(self._before.changed_bytes)
        self._next_look = time.monotonic() + _LOOK_EVERY_SECONDS
        return changed > rate * _MOST_SECONDS


async def watch(here: Guest, said: dict[str, Any]) -> None:
    """Between two looks at a running migration: end the single pass of a guest that writes too much."""
    if here.first_pass is not None and said.get("status") == "active" and await here.first_pass.too_much(said):
        here.first_pass = None
        await here.monitor.execute("migrate-set-parameters", {"downtime-limit": DOWNTIME_LIMIT_MS})


def exact(here: Guest, said: dict[str, Any]) -> bool:
    """Whether a guest that waits for its switchover has lost no page: QEMU has collected once, and it was held."""
    return not _software(here) or collections(said) == 1


def collections(said: dict[str, Any]) -> int:
    return int(said.get("ram", {}).get("dirty-sync-count", 0))


def _software(here: Guest) -> bool:
    return here.record.profile.accelerator == "tcg"
