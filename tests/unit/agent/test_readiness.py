import asyncio
import socket
from pathlib import Path
from threading import Thread

import pytest

from agent.guest_scripts import READY_MARK
from agent.readiness import is_up, seconds
from engine.model.workload_image import ImageFile, ReadyCheck, WorkloadImage
from tests.unit.agent.conftest import PROFILE, guest_record


def record(ready: ReadyCheck | None, port: int = 1) -> object:
    kernel = ImageFile(source="kernel", sha256="a" * 64)
    own = None if ready is None else WorkloadImage(name="mine", kernel=kernel, ready=ready)
    return guest_record(profile=PROFILE.model_copy(update={"image": own}), forwarded_port=port)


def up(ready: ReadyCheck | None, run: Path, port: int = 1) -> bool:
    return asyncio.run(is_up(record(ready, port), run))  # type: ignore[arg-type]


@pytest.mark.parametrize(("ready", "mark"), [(None, READY_MARK), (ReadyCheck(console="login:"), "login:")])
def test_a_guest_says_so_on_its_console(ready: ReadyCheck | None, mark: str, tmp_path: Path) -> None:
    assert not up(ready, tmp_path)
    (tmp_path / "serial.log").write_text("booting\nhost ")
    assert not up(ready, tmp_path)
    (tmp_path / "serial.log").write_text(f"booting\nhost {mark}")
    assert up(ready, tmp_path)


def test_a_port_that_qemu_forwards_and_the_guest_closes_is_not_up(tmp_path: Path) -> None:
    ready = ReadyCheck(tcp_port=80)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        closing = Thread(target=lambda: server.accept()[0].close())
        closing.start()
        assert not up(ready, tmp_path, port)
        closing.join()
        assert up(ready, tmp_path, port)  # taken, and left open
    assert not up(ready, tmp_path, port)


def test_an_image_says_how_long_its_boot_may_take() -> None:
    assert seconds(record(ReadyCheck(console="x", seconds=12.0))) == 12.0  # type: ignore[arg-type]
    assert seconds(record(None)) == 90.0  # type: ignore[arg-type]
