import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from agent import guest
from agent.guest import GuestRecord, alive, command_line, kill, measured, start_ticks
from agent.guest_scripts import READY_MARK
from agent.image import GuestImage
from agent.wire import GuestProfile, NetworkMode
from engine.errors import MissingPart, ProviderUnavailable, UsageError
from engine.model.capacity import Resources
from engine.model.ids import ShardId
from engine.model.workload_image import ImageFile, ReadyCheck, WorkloadImage

PROFILE = GuestProfile(qemu_version="7.2", machine="pc-i440fx-7.2", accelerator="tcg", cpu="max", image_digest="d")


def record(**changes: object) -> GuestRecord:
    return GuestRecord(
        shard=ShardId("s1"), resources=Resources(vcpus=1.5, memory_gib=0.125), image="records",
        address="10.9.0.2/16", mac="52:54:00:09:00:02", disk_mib=64, profile=PROFILE, network=NetworkMode.BRIDGE,
        tap="sw0123456789",
    ).model_copy(update=changes)  # fmt: skip


def test_source_and_destination_differ_only_in_waiting() -> None:
    source = command_line(record(), direct_io=True, mtu=1450, tap=9)
    destination = command_line(record(incoming=True), direct_io=True, mtu=1450, tap=9)
    assert destination == [*source, "-incoming", "defer", "-S"]


def test_the_command_line_carries_the_shard() -> None:
    line = " ".join(command_line(record(), direct_io=True, mtu=1450, tap=9))
    assert "-M pc-i440fx-7.2,hpet=off,memory-backend=mem0" in line
    assert "-object memory-backend-memfd,id=mem0,size=128M,share=on -accel tcg" in line
    assert "-smp 2 -m 128" in line
    assert "shard.waits=1" in line
    assert "10.9.0.2" not in line  # it is told on its console: a template has no address
    assert "tap,id=n0,fd=9" in line
    assert "-sandbox on" in line
    assert "spawn=deny" in line
    assert '"cache":{"direct":true}' in line


def test_nothing_follows_what_a_guest_needs_in_its_stream() -> None:
    """A destination would take a stream that is cut in what follows for whole, while the source runs on."""
    old, bare = PROFILE, PROFILE.model_copy(update={"bare_stream": True})
    lines = [" ".join(command_line(record(profile=one), direct_io=True, mtu=1450, tap=9)) for one in (old, bare)]
    assert ["suppress-vmdesc=on" in line for line in lines] == [False, True]


def test_a_guest_boots_with_what_it_was_carved_with_and_has_room_beyond() -> None:
    profile = PROFILE.model_copy(update={"memory_mib": 128, "memory_growth_mib": 384})
    grown = record(profile=profile, resources=Resources(vcpus=1, memory_gib=0.5))
    line = " ".join(command_line(grown, direct_io=True, mtu=1450, tap=9))
    assert "memory-backend-memfd,id=mem0,size=128M,share=on" in line
    assert "-m 128,maxmem=512M" in line
    assert "virtio-mem-pci,id=vm0,memdev=more0,requested-size=0" in line
    assert "swiotlb=noforce" in line


def test_a_resize_leaves_the_number_of_virtual_cpus_that_both_sides_of_a_move_must_share() -> None:
    booted = PROFILE.model_copy(update={"cpus": 2})
    line = " ".join(command_line(record(profile=booted, resources=Resources(vcpus=0.5, memory_gib=0.125)),
                                 direct_io=True, mtu=1450, tap=9))  # fmt: skip
    assert "-smp 2 -m" in line


@pytest.mark.parametrize(("vcpus", "most", "cpus"), [(0.1, None, 1), (1.5, None, 2), (1.5, 3.5, 4), (2, 2, 2)])
def test_a_guest_boots_with_the_virtual_cpus_that_it_may_come_to_use(
    vcpus: float, most: float | None, cpus: int
) -> None:
    assert guest.virtual_cpus(Resources(vcpus=vcpus, memory_gib=1), most) == cpus


def test_vcpus_that_grow_to_less_are_a_mistake() -> None:
    with pytest.raises(UsageError, match=r"1 of 1\.5"):
        guest.virtual_cpus(Resources(vcpus=1.5, memory_gib=1), 1)


OWN = WorkloadImage(
    name="mine", kernel=ImageFile(source="k", sha256="a" * 64), kernel_words="root=/dev/vda",
    ready=ReadyCheck(tcp_port=80),
)  # fmt: skip


def test_a_kernel_of_ones_own_is_told_where_it_is_and_ones_own_words() -> None:
    own = record(profile=PROFILE.model_copy(update={"image": OWN}))
    arguments = command_line(own, direct_io=True, mtu=1450, tap=9)
    assert arguments[arguments.index("-append") + 1].endswith("shard.address=10.9.0.2/16 shard.mtu=1450 root=/dev/vda")
    assert "-initrd" not in arguments
    forwarded = command_line(own.model_copy(update={"forwarded_port": 1}), direct_io=True, mtu=None, tap=None)
    assert "hostfwd=tcp:127.0.0.1:1-10.9.0.2:80" in " ".join(forwarded)


def test_a_disk_that_boots_itself_gets_no_kernel_and_no_room_that_it_cannot_use() -> None:
    disk = OWN.model_copy(update={"kernel": None, "kernel_words": "", "disk": OWN.kernel})
    line = " ".join(
        command_line(record(profile=PROFILE.model_copy(update={"image": disk})), direct_io=True, mtu=1, tap=9)
    )
    assert "-kernel" not in line
    assert "name=opt/shardwright/address,string=10.9.0.2/16" in line
    have = GuestImage(name="mine", kernel="", initrd="", kernel_version="", digest="d")
    assert guest.profile("tcg", have, record().resources, own=disk).memory_growth_mib == 0
    assert guest.profile("tcg", have, record().resources, own=OWN).memory_growth_mib > 0


def test_a_disk_begins_as_a_copy_of_the_image_and_is_as_large_as_it_at_least(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(b"boot" + bytes(1 << 20))
    assert guest.create_disk(tmp_path / "disk", 1, str(tmp_path / "image")) == 2
    assert (tmp_path / "disk").read_bytes() == b"boot".ljust(2 << 20, b"\0")
    assert guest.create_disk(tmp_path / "large", 8, str(tmp_path / "image")) == 8
    assert {path.name for path in tmp_path.iterdir()} == {"image", "disk", "large"}


def test_a_disk_that_cannot_be_copied_is_named_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(MissingPart, match="No such file"):
        guest.create_disk(tmp_path / "disk", 1, str(tmp_path / "nothing"))

    def hang(command: list[str], **_: object) -> None:
        (tmp_path / "disk.new").write_text("half")
        raise subprocess.TimeoutExpired(command, 600)

    monkeypatch.setattr("subprocess.run", hang)
    with pytest.raises(MissingPart, match="not within 600 s"):
        guest.create_disk(tmp_path / "disk", 1, str(tmp_path / "nothing"))
    assert list(tmp_path.iterdir()) == []


def test_without_a_bridge_the_record_server_is_forwarded_on_loopback_only() -> None:
    arguments = command_line(
        record(network=NetworkMode.USER, tap=None, forwarded_port=12345), direct_io=False, mtu=None, tap=None
    )
    netdev = arguments[arguments.index("-netdev") + 1]
    assert "hostfwd=tcp:127.0.0.1:12345-10.9.0.2:7000" in netdev
    assert "net=10.9.0.0/16,host=10.9.255.254" in netdev


def test_without_a_bridge_a_guest_reaches_nothing_of_its_node() -> None:
    arguments = command_line(
        record(network=NetworkMode.USER, tap=None, forwarded_port=1), direct_io=False, mtu=None, tap=None
    )
    assert "restrict=on" in arguments[arguments.index("-netdev") + 1].split(",")


@pytest.fixture
def process(tmp_path: Path) -> subprocess.Popen[bytes]:
    return guest.start([sys.executable, "-c", "import time; time.sleep(60)"], tmp_path)


def test_a_guest_is_named_by_pid_and_start(process: subprocess.Popen[bytes]) -> None:
    mine = record(pid=process.pid, start_ticks=start_ticks(process.pid))
    recycled = mine.model_copy(update={"start_ticks": mine.start_ticks - 1})
    assert alive(mine)
    assert not alive(recycled)
    assert kill(recycled)  # nothing to kill: that process is another one
    assert alive(mine)
    assert kill(mine)
    assert not alive(mine)
    process.wait()


def test_a_guest_is_in_a_session_of_its_own(process: subprocess.Popen[bytes]) -> None:
    session = int(Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[3])
    assert session == process.pid
    process.kill()
    process.wait()


def test_what_the_guest_measured_is_read_from_its_console(tmp_path: Path) -> None:
    (tmp_path / "serial.log").write_text(
        "shardwright-measured cpu_rounds_per_second 62500\r\n"
        f"shardwright-measured read_iops 1066\r\nshardwright-measured cpu broken\r\n{READY_MARK}\r\n"
    )
    said = measured(tmp_path, 3.2)
    assert (said.boot_seconds, said.cpu_rounds_per_second, said.read_iops) == (3.2, 62500, 1066)
    assert guest.is_ready(tmp_path)


def test_a_number_is_not_read_while_half_of_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "serial.log").write_text("shardwright-measured read_iops 7\r\nshardwright-measured read_iops 1")
    assert measured(tmp_path, None).read_iops == 7


@pytest.fixture
def most(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(guest, "MOST_CONSOLE_BYTES", 100)
    return 100


def test_of_a_long_console_the_end_is_read(tmp_path: Path, most: int) -> None:
    (tmp_path / "serial.log").write_text("begin" + "x" * most + "\r\nend")
    said = guest.console(tmp_path)
    assert said.endswith("x\nend")
    assert "begin" not in said


def test_a_console_that_is_too_long_is_cut_and_written_on(tmp_path: Path, most: int) -> None:
    log = tmp_path / "serial.log"
    with log.open("ab", buffering=0) as qemu:
        qemu.write(b"x" * most)
        assert not guest.cut_console(tmp_path)
        qemu.write(b"x")
        assert guest.cut_console(tmp_path)
        qemu.write(b"end")
    assert log.read_bytes() == b"end"


def test_a_console_that_leads_elsewhere_is_neither_read_nor_cut(tmp_path: Path, most: int) -> None:
    other = tmp_path / "other"
    other.write_text("y" * 2 * most)
    run = tmp_path / "run"
    run.mkdir()
    for lead in (Path.symlink_to, Path.hardlink_to):
        (run / "serial.log").unlink(missing_ok=True)
        lead(run / "serial.log", other)
        assert guest.console(run) == ""
        assert not guest.cut_console(run)
    assert len(other.read_text()) == 2 * most


def test_a_silent_console_says_nothing(tmp_path: Path) -> None:
    assert not guest.is_ready(tmp_path)
    assert measured(tmp_path, None).read_iops is None


def test_a_disk_is_made_once(tmp_path: Path) -> None:
    guest.create_disk(tmp_path / "disk", 2)
    assert (tmp_path / "disk").stat().st_size == 2 << 20
    (tmp_path / "disk").write_bytes(b"kept")
    guest.create_disk(tmp_path / "disk", 2)
    assert (tmp_path / "disk").read_bytes() == b"kept"


def image(folder: Path) -> GuestImage:
    for name in ("vmlinuz", "initrd"):
        (folder / name).write_text(name)
        (folder / name).chmod(0o600)
    kernel, initrd = str(folder / "vmlinuz"), str(folder / "initrd")
    return GuestImage(name="records", kernel=kernel, initrd=initrd, kernel_version="6", digest="d")


@pytest.fixture
def lent(tmp_path: Path) -> Path:
    """A guest's folder before its start, with what an earlier run left."""
    folder = tmp_path / "s1"
    (folder / "run").mkdir(parents=True)
    (folder / "run/serial.log").write_text("old")
    (folder / "shard.json").write_text("{}")
    guest.create_disk(folder / "disk.raw", 1)
    return folder


def test_a_start_finds_kernel_and_initramfs_and_nothing_of_an_earlier_run(tmp_path: Path, lent: Path) -> None:
    guest.lend(lent, image(tmp_path), None)
    assert {path.name for path in (lent / "run").iterdir()} == {"kernel", "initrd"}
    guest.lend(lent, image(tmp_path), None)
    assert (lent / "run/initrd").read_text() == "initrd"


@pytest.mark.root
def test_a_guests_user_owns_where_it_works_and_its_disk_and_nothing_else(tmp_path: Path, lent: Path) -> None:
    user = guest.user_for(lent, "tcg")
    if user is None:
        pytest.skip("this process may not become another user")
    guest.lend(lent, image(tmp_path), user)
    keys = tmp_path / "tls"
    keys.mkdir()
    (keys / "server-key.pem").write_text("KEY")
    (keys / "node.key").write_text("KEY")
    assert guest.lend_tls(keys, lent, user) == "../tls"
    owners = {path.relative_to(lent).as_posix(): path.stat().st_uid for path in lent.rglob("*")}
    assert {name for name, owner in owners.items() if owner == user} == {"run", "disk.raw"}
    assert sorted(path.name for path in (lent / "tls").iterdir()) == ["server-key.pem"]
    script = "cat ../tls/server-key.pem kernel; test -w ../disk.raw || echo NO DISK; test -w ../shard.json && echo BAD"
    began = guest.start(["/bin/sh", "-c", f"{script}; true"], lent, user=user)
    assert began.wait(20) == 0
    assert (lent / "qemu.log").read_text() == "KEYvmlinuz"


@pytest.mark.parametrize(("uid_map", "known"), [("0 0 4294967295", True), ("0 1000 1", False), ("", False)])
def test_a_user_that_this_namespace_has_not_is_not_used(uid_map: str, known: bool) -> None:
    assert guest._is_mapped(61_200, uid_map) is known


def test_two_guests_have_two_users() -> None:
    if guest.user_for(Path("/nowhere/s1"), "tcg") is None:
        pytest.skip("this process may not become another user")
    users = {guest.user_for(Path(f"/nowhere/s{n}"), "tcg") for n in range(20)}
    assert len(users) > 18


def test_a_guest_that_was_stopped_is_known(process: subprocess.Popen[bytes]) -> None:
    mine = record(pid=process.pid, start_ticks=start_ticks(process.pid))
    assert not guest.stopped(mine)
    process.send_signal(signal.SIGSTOP)
    while not guest.stopped(mine):
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not guest.stopped(mine)


@pytest.mark.parametrize("ask", [guest.qemu_version, guest.default_machine])
def test_a_qemu_that_does_not_answer_is_told_of_in_our_words(
    ask: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / guest.QEMU).write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / guest.QEMU).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(guest, "_ASK_SECONDS", 0.2)
    ask.cache_clear()
    with pytest.raises(ProviderUnavailable, match="does not end"):
        ask()
