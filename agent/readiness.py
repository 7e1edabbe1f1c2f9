"""Whether a guest is up: what its image says about that, looked at from outside the guest."""

import asyncio
import socket
from pathlib import Path

from agent import guest, network
from agent.guest import GuestRecord
from agent.probe_port import probe_port
from engine.model.workload_image import ReadyCheck

BOOT_SECONDS = 90.0
_ANSWER_SECONDS = 0.3


def seconds(record: GuestRecord) -> float:
    """How long the guest may take."""
    image = record.profile.image
    return BOOT_SECONDS if image is None else image.ready.seconds


async def is_up(record: GuestRecord, run: Path) -> bool:
    """``run``: where its QEMU works."""
    image = record.profile.image
    if image is None:
        return guest.is_ready(run)
    check: ReadyCheck = image.ready
    if check.tcp_port is None:
        return check.console in guest.console(run)
    if record.tap is None:
        return await asyncio.to_thread(_answers_forwarded, record.forwarded_port or 0)
    bridge = network.own_bridge(record.tap)
    answer = await asyncio.to_thread(
        probe_port, record.tap, bridge, record.mac, record.address, check.tcp_port, _ANSWER_SECONDS
    )
    return answer.open


def _answers_forwarded(port: int) -> bool:
    """QEMU takes the connection in any case, and closes it at once where the guest does not."""
    try:
        with socket.create_connection(("127.0.0.1", port), _ANSWER_SECONDS) as connection:
            connection.settimeout(_ANSWER_SECONDS)
            return connection.recv(1) != b""
    except TimeoutError:
        return True
    except OSError:
        return False
