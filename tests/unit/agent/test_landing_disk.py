"""The disk of a guest on its way here, in a real QEMU that waits for one."""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import guest, landing_disk, network
from agent.guest import SOCKET_NAME
from agent.monitor import GuestRefused
from agent.move_side import TLS
from agent.node_guest import Guest
from tests.unit.agent.conftest import guest_record

AUTHZ = "authz-test"


@pytest.fixture
def landing(tmp_path: Path) -> Iterator[Guest]:
    """It holds the disk as a guest's own node, not opened yet: that is done when it runs."""
    if shutil.which(guest.QEMU) is None:
        pytest.skip("QEMU is not installed: nothing lands")
    guest.create_disk(tmp_path / "disk.raw", 1)
    line = [guest.QEMU, "-M", "pc", "-nodefaults", "-display", "none", "-S", "-incoming", "defer"]
    line += ["-qmp", f"unix:{SOCKET_NAME},server=on,wait=off"]
    line += ["-object", f"tls-creds-anon,id={TLS},endpoint=server"]
    line += ["-object", f"authz-simple,id={AUTHZ},identity=CN=nA"]
    line += ["-blockdev", '{"driver":"file","filename":"../disk.raw","node-name":"f0"}']
    line += ["-blockdev", '{"driver":"raw","file":"f0","node-name":"d0"}', "-device", "virtio-blk-pci,drive=d0"]
    process = guest.start(line, tmp_path)
    try:
        yield Guest(tmp_path, guest_record(pid=process.pid, disk_port=network.free_port("127.0.0.1")))
    finally:
        process.kill()
        process.wait()


async def connected(here: Guest) -> None:
    async with asyncio.timeout(20):
        while not (here.run / SOCKET_NAME).exists():
            await asyncio.sleep(0.01)


async def seen(here: Guest) -> tuple[set[str], int, int]:
    """The nodes on its disk's file, its exports, its threads."""
    nodes = await here.monitor.execute("query-named-block-nodes")
    files = {node["node-name"] for node in nodes if node["drv"] == "file"}
    exports, threads = await here.monitor.execute("query-block-exports"), await here.monitor.execute("query-iothreads")
    return files, len(exports), len(threads)


def test_the_mirror_has_a_node_and_a_thread_of_its_own_until_the_disk_is_the_guests(landing: Guest) -> None:
    async def go() -> None:
        await connected(landing)
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
        await connected(landing)
        await landing.monitor.execute("object-del", {"id": TLS})
        with pytest.raises(GuestRefused, match=TLS):
            await landing_disk.serve(landing, "127.0.0.1", authorized=AUTHZ)
        assert (await seen(landing))[1] == 0

    asyncio.run(go())
