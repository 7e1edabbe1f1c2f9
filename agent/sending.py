"""How a guest's memory begins to be sent, without any of it being lost."""

from agent.monitor import poll
from agent.shards import Guest

ENDED = ("completed", "failed", "cancelled", "none")
"""QEMU's words while nothing is being sent."""
_SETUP_SECONDS = 5.0


async def start_sending(here: Guest, uri: str) -> None:
    """Under TCG the guest waits until QEMU has begun to log its writes.

    QEMU 7.2 clears every dirty mark at that moment, but tells the software CPU only when it finds newly dirty
    pages, and there are none: all are dirty. What is in the TLB by then is written without a mark until the guest
    flushes it. A guest that stands still has an empty TLB: starting the log flushes it.
    """
    hold = here.record.profile.accelerator == "tcg"
    if hold:
        await here.monitor.execute("stop")
    try:
        await here.monitor.execute("migrate", {"uri": uri})

        async def logging() -> bool:
            said = await here.monitor.execute("query-migrate")
            return said.get("status") in ENDED or said.get("ram", {}).get("dirty-sync-count", 0) >= 1

        if hold:
            await poll(logging, seconds=_SETUP_SECONDS, every=0.002, what="the start of the migration")
    finally:
        if hold:
            await here.monitor.execute("cont")
