"""What a guest gets, as it counts it itself: asked on its console, one resource after the other."""

import asyncio
import time

from agent import console, memory_size, network
from agent.monitor import poll
from agent.node_guest import Guest
from engine.errors import NotFound

_FIRST_READS = 16
"""That the guest makes before those that it counts."""
_UNLIMITED_READS = 300
"""A second, where nothing limits them."""
_SETTLED_SECONDS = 0.5
"""For a count that is not what was plugged in: it counts once it has stayed the same for so long."""


async def measure(here: Guest, seconds: int) -> None:
    """Processor, disk and network (each way) in turn, ``seconds`` each, into the record. Raises NotFound."""
    record = here.record
    if not record.speaks:
        raise NotFound(f"the image of shard {record.shard} does not measure itself", why=record.image)
    rounds = await console.ask(here.run, f"cpu {seconds}", "cpu_rounds_per_second", seconds)
    reads = round(
        min(seconds * (record.resources.storage_iops or _UNLIMITED_READS), record.disk_mib * 256 - _FIRST_READS)
    )
    found: dict[str, float] = {"cpu_rounds_per_second": rounds}
    found["read_iops"] = await console.ask(here.run, f"disk {reads}", "read_iops", seconds)
    if record.tap is not None and record.resources.network_mbps > 0:
        found |= await _network(here, record.tap, seconds)
    here.save(measured=here.record.measured.model_copy(update=found))


async def _network(here: Guest, tap: str, seconds: int) -> dict[str, float]:
    address = here.record.address
    flood = asyncio.to_thread(network.flood, tap, here.record.mac, seconds + 2)
    asked = console.ask(here.run, f"received {seconds}", "received_kbit_per_second", seconds)
    received, _ = await asyncio.gather(asked, flood)
    told = f"flood {seconds + 2} {network.nobody(address)}"
    asked = console.ask(here.run, told, "flooded_bytes", seconds + 2)
    sent, _ = await asyncio.gather(asyncio.to_thread(network.taken_mbps, tap, here.record.mac, address, seconds), asked)
    return {"receive_mbps": received / 1000, "send_mbps": sent}


async def measure_memory(here: Guest, grown_mib: int) -> None:
    """As the guest counts it, which it does piece by piece and a little later than QEMU."""
    if not here.record.speaks:
        return
    before = here.record.measured.memory_mib or 0
    last, since = 0, 0.0

    async def counted() -> int:
        nonlocal last, since
        mib = await console.ask(here.run, "memory 1", "memory_kib", 1) // 1024
        if mib != last:
            last, since = mib, time.monotonic()
        found = abs(mib - before)
        if found < abs(grown_mib) / 2:
            return 0
        all_of_it = abs(found - abs(grown_mib)) < memory_size.STEP_MIB
        return mib if all_of_it or time.monotonic() - since >= _SETTLED_SECONDS else 0

    what = "the guest's own count of its memory"
    seen = await poll(counted, seconds=memory_size.LONGEST_SECONDS, every=0.05, what=what)
    here.save(measured=here.record.measured.model_copy(update={"memory_mib": seen}))
