"""A real QEMU whose guest never runs, for what is asked of its monitor."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent import guest, network
from agent.guest import SOCKET_NAME
from agent.node_guest import Guest
from tests.unit.agent.conftest import guest_record


@contextmanager
def paused_qemu(folder: Path, *more: str) -> Iterator[Guest]:
    """With a disk of 1 MiB as the node d0; ``more``: further arguments."""
    if shutil.which(guest.QEMU) is None:
        pytest.skip("QEMU is not installed: nothing can be asked of it")
    guest.create_disk(folder / "disk.raw", 1)
    line = [guest.QEMU, "-M", "pc", "-nodefaults", "-display", "none", "-S", *more]
    line += ["-qmp", f"unix:{SOCKET_NAME},server=on,wait=off"]
    line += ["-blockdev", '{"driver":"file","filename":"../disk.raw","node-name":"f0"}']
    line += ["-blockdev", '{"driver":"raw","file":"f0","node-name":"d0"}', "-device", "virtio-blk-pci,drive=d0"]
    process = guest.start(line, folder)
    here = Guest(folder, guest_record(pid=process.pid, disk_port=network.free_port("127.0.0.1")))
    try:
        deadline = time.monotonic() + 20
        while not (here.run / SOCKET_NAME).exists():
            assert process.poll() is None, (folder / "qemu.log").read_text()
            assert time.monotonic() < deadline, "QEMU does not come up"
            time.sleep(0.01)
        yield here
    finally:
        process.kill()
        process.wait()
