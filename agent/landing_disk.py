"""The disk of a guest that is on its way here, while its source's mirror writes to it.

QEMU takes the memory in on its main loop, and a write or flush that had to wait there would make the guest's pause
longer. So the mirror is served from a thread of its own, through a second node on the same file: the guest's own node
opens it only when the guest runs, and must be alone with it then.
"""

import asyncio

from agent import guest
from agent.move_side import TLS
from agent.node_guest import Guest, quietly

_NODE, _THREAD, _EXPORT = "landing", "thread-landing", "export-move"


async def serve(here: Guest, host: str, *, authorized: str) -> None:
    """Over TLS, at the record's ``disk_port``, to whom the authorization object of that name lets in."""
    execute, disk = here.monitor.execute, here.folder / "disk.raw"
    await execute("object-add", {"qom-type": "iothread", "id": _THREAD})
    cache = {"direct": guest.supports_direct_io(disk)}
    node = {"driver": "file", "filename": f"../{disk.name}", "node-name": _NODE, "cache": cache}
    await execute("blockdev-add", node)
    address = {"type": "inet", "data": {"host": host, "port": str(here.record.disk_port)}}
    await execute("nbd-server-start", {"addr": address, "tls-creds": TLS, "tls-authz": authorized})
    export = {"type": "nbd", "id": _EXPORT, "node-name": _NODE, "name": "disk", "writable": True}
    await execute("block-export-add", export | {"iothread": _THREAD, "fixed-iothread": True})


async def close(here: Guest) -> None:
    """Nobody but the guest writes to it from now on; may be repeated. QEMU does what it is told in this order."""
    await asyncio.gather(quietly(here, "nbd-server-stop"), quietly(here, "blockdev-del", node_name=_NODE))


async def forget(here: Guest) -> None:
    """Once it was closed: its thread has no more to do."""
    await quietly(here, "object-del", id=_THREAD)
