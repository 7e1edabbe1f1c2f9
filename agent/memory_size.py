"""How much memory a running guest has: what it boots with, and what is plugged in beyond it (virtio-mem).

QEMU never migrates what is not plugged in and gives it back to the host, so room to grow costs a guest next to nothing.
Both ends of a move have the same room; how much of it is plugged in travels with the guest.
"""

import asyncio
import math
import time

from agent.monitor import Monitor
from agent.wire import GuestProfile
from engine.errors import UsageError
from engine.model.capacity import Resources

STEP_MIB = 4
"""The guest's kernel plugs and unplugs in such pieces."""
_BLOCK_MIB = 128
"""A Linux memory block: less cannot be given room."""
GROWS_TO = 4
"""Times what it boots with, where nothing else is asked for."""
LONGEST_SECONDS = 12.0
"""How long a guest may take to plug memory in, or to let go of it."""
STALLED_SECONDS = 4.0
"""Of it without any progress."""
BACKEND_ID, _DEVICE_ID = "more0", "vm0"
DEVICE_PATH = f"/machine/peripheral/{_DEVICE_ID}"
# Memory above 4 GiB makes the guest's kernel set 64 MiB aside for devices that reach less: here there are none. And
# what is plugged in must stay movable, else it could not be had back.
KERNEL_WORDS = "swiotlb=noforce memhp_default_state=online_movable"


def mib(memory_gib: float) -> int:
    return round(memory_gib * 1024)


def growth_mib(boot_mib: int, most_mib: int | None) -> int:
    """Room for what may be plugged in, in whole blocks; 0: none. Raises UsageError for less than it boots with."""
    if most_mib is None:
        most_mib = boot_mib * GROWS_TO
    if most_mib < boot_mib:
        raise UsageError("memory cannot grow to less than it is", why=f"{most_mib} MiB of {boot_mib}")
    return math.ceil((most_mib - boot_mib) / _BLOCK_MIB) * _BLOCK_MIB


def devices(profile: GuestProfile, backend: str) -> list[str]:
    """QEMU's arguments for the room to grow; ``backend`` as for the memory that the guest boots with."""
    if not profile.memory_growth_mib:
        return []
    memory = f"{backend},id={BACKEND_ID},size={profile.memory_growth_mib}M,share=on"
    return ["-object", memory, "-device", f"virtio-mem-pci,id={_DEVICE_ID},memdev={BACKEND_ID},requested-size=0"]


def plugged_mib(profile: GuestProfile, wanted: Resources) -> int:
    """What must be plugged in for it. Raises UsageError for what this guest can never have."""
    asked, boot, most = mib(wanted.memory_gib), profile.memory_mib, profile.memory_mib + profile.memory_growth_mib
    if not boot <= asked <= most:
        raise UsageError(
            f"this shard's memory can be {boot} to {most} MiB while it runs", why=f"{asked} MiB asked for",
            next_step="carve another shard and move over",
        )  # fmt: skip
    require_step(boot, asked)
    return asked - boot


def require_step(has_mib: int, asked_mib: int) -> None:
    """``has_mib``: what it boots with, or has now. Raises UsageError that names the two nearest sizes."""
    beyond = (asked_mib - has_mib) % STEP_MIB
    if beyond:
        lower = asked_mib - beyond
        raise UsageError(
            f"memory changes in steps of {STEP_MIB} MiB", why=f"{asked_mib} MiB asked for, from {has_mib}",
            next_step=f"--memory-gib {lower / 1024:.10g} or {(lower + STEP_MIB) / 1024:.10g}",
        )  # fmt: skip


async def plug(monitor: Monitor, wanted: int) -> int:
    """MiB that are plugged in at the end: when it is done, when nothing moves any more, or when the time is up."""
    await ask_for(monitor, wanted)
    reached, began = await plugged(monitor), time.monotonic()
    moved = began
    while reached != wanted and time.monotonic() - began < LONGEST_SECONDS:
        await asyncio.sleep(0.05)
        before, reached = reached, await plugged(monitor)
        moved = moved if before == reached else time.monotonic()
        if time.monotonic() - moved > STALLED_SECONDS:  # its kernel tries again after 50 seconds only
            break
    return reached


async def ask_for(monitor: Monitor, plugged: int) -> None:
    """Tell the guest how many MiB it may have plugged in; it takes its time. Raises GuestRefused, NotFound."""
    arguments = {"path": DEVICE_PATH, "property": "requested-size", "value": plugged << 20}
    await monitor.execute("qom-set", arguments)


async def plugged(monitor: Monitor) -> int:
    """MiB that the guest has plugged in now. Raises GuestRefused, NotFound."""
    return int(await monitor.execute("qom-get", {"path": DEVICE_PATH, "property": "size"})) >> 20
