import asyncio
import socket
import struct
from pathlib import Path
from threading import Thread

import pytest

from agent.guest_scripts import READY_MARK
from agent.readiness import answered, is_up, packet, seconds
from engine.model.workload_image import ImageFile, ReadyCheck, WorkloadImage
from tests.unit.agent.conftest import PROFILE, guest_record

HERE, THERE = bytes([10, 9, 255, 254]), bytes([10, 9, 0, 2])


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


def folded(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def test_a_packet_carries_sums_that_a_kernel_accepts() -> None:
    sent = packet(HERE, THERE, 40_000, 80, 7, 0, 0x02)
    assert folded(sent[:20]) == 0xFFFF
    assert folded(HERE + THERE + struct.pack("!BBH", 0, 6, 20) + sent[20:]) == 0xFFFF


def test_an_answer_is_told_from_other_traffic() -> None:
    answer = packet(THERE, HERE, 80, 40_000, 100, 8, 0x12)
    assert answered(answer, THERE, HERE, 80, 40_000) == (0x12, 8)
    for other in (
        b"",
        answer[:30],
        packet(THERE, HERE, 81, 40_000, 1, 8, 0x12),
        packet(HERE, THERE, 80, 40_000, 1, 8, 2),
    ):
        assert answered(other, THERE, HERE, 80, 40_000) is None
