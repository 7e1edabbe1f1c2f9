"""The disk of a guest on its way here, in a real QEMU that waits for one."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import landing_disk
from agent.monitor import GuestRefused
from agent.move_side import TLS
from agent.node_guest import Guest
from tests.unit.agent.paused_qemu import paused_qemu

AUTHZ = "authz-test"


@pytest.fixture
def landing(tmp_path: Path) -> Iterator[Guest]:
    """It holds the disk as a guest's own node, not opened yet: that is done when it runs."""
    known = (
        "-object",
        f"tls-creds-anon,id={TLS},endpoint=server",
        "-object",
        f"authz-simple,id={AUTHZ},identity=CN=nA",
    )
    with paused_qemu(tmp_path, "-incoming", "defer", *known) as here:
        yield here


async def seen(here: Guest) -> tuple[set[str], int, int]:
    """The nodes on its disk's file, its exports, its threads."""
    nodes = await here.monitor.execute("query-named-block-nodes")
    files = {node["node-name"] for node in nodes if node["drv"] == "file"}
    exports, threads = await here.monitor.execute("query-block-exports"), await here.monitor.execute("query-iothreads")
    return files, len(exports), len(threads)


def test_the_mirror_has_a_node_and_a_thread_of_its_own_until_the_disk_is_the_guests(landing: Guest) -> None:
    async def go() -> None:
        await landing_disk.serve(landing, "127.0.0.1", authorized=AUTHZ)
        assert await seen(landing) == ({"f0", "landing"}, 1, 1)
        for _ in range(2):
            await landing_disk.close(landing)
            assert await seen(landing) == ({"f0"}, 0, 1)
        for _ in range(2):
            await landing_disk.forget(landing)
            assert await seen(landing) == ({"f0"}, 0, 0)
        await landing_disk.serve(landing, "127.0.0.1", authorized=AUTHZ)
        assert await seen(landing) == ({"f0", "landing"}, 1, 1)

    asyncio.run(go())


def test_it_is_nobodys_whom_qemu_cannot_tell_apart(landing: Guest) -> None:
    """Without the certificate's object it is refused before anything of it can be reached."""

    async def go() -> None:
        await landing.monitor.execute("object-del", {"id": TLS})
        with pytest.raises(GuestRefused, match=TLS):
            await landing_disk.serve(landing, "127.0.0.1", authorized=AUTHZ)
        assert (await seen(landing))[1] == 0

    asyncio.run(go())
