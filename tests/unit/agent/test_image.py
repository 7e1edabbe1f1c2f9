import gzip
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from agent.guest_scripts import READY_MARK
from agent.image import SECTOR_BYTES, build_image, find_kernel, main, read_records, require_kernel
from engine.errors import MissingPart


def store(path: Path, numbers: list[int], *, at: int = 0, mib: int = 4) -> None:
    with path.open("wb") as disk:
        disk.truncate(mib << 20)
        disk.seek(at * SECTOR_BYTES)
        for number in numbers:
            disk.write(f"{number:<511}\n".encode())


def test_records_come_back_in_the_order_of_their_sectors(tmp_path: Path) -> None:
    store(tmp_path / "disk", [1, 2, 3, 7])
    assert read_records(tmp_path / "disk") == [1, 2, 3, 7]


def test_records_behind_a_hole_are_found(tmp_path: Path) -> None:
    store(tmp_path / "disk", [9], at=4096)
    assert read_records(tmp_path / "disk") == [9]


def test_an_empty_disk_has_no_records(tmp_path: Path) -> None:
    store(tmp_path / "disk", [])
    assert read_records(tmp_path / "disk") == []


def test_a_torn_sector_is_an_error(tmp_path: Path) -> None:
    store(tmp_path / "disk", [1])
    with (tmp_path / "disk").open("r+b") as disk:
        disk.seek(SECTOR_BYTES)
        disk.write(b"12x4".ljust(SECTOR_BYTES))
    with pytest.raises(ValueError, match="sector 1 "):
        read_records(tmp_path / "disk")


def test_find_kernel_looks_but_does_not_fetch(tmp_path: Path) -> None:
    assert find_kernel(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_a_kernel_that_is_required_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(MissingPart, match="the guest kernel is not there"):
        require_kernel(tmp_path)


def test_set_up_sees_that_nothing_is_there_and_that_all_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As its own process, as set-up runs it: a module that does nothing would end well, too."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    command = [sys.executable, "-m", "agent.image", "--check"]
    bare = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (bare.returncode, bare.stdout) == (1, "")
    assert "make setup" in bare.stderr
    (tmp_path / "shardwright/guest/kernel-9.9-cloud/boot").mkdir(parents=True)
    (tmp_path / "shardwright/guest/kernel-9.9-cloud/boot/vmlinuz-9.9-cloud").write_bytes(b"kernel")
    if not Path("/bin/busybox").exists():
        pytest.skip("no static busybox on this machine")
    assert main(["--check"]) == 0
    assert main(["--install"]) == 0
    assert "guest image records, kernel 9.9-cloud" in capsys.readouterr().out


def test_a_kernel_that_an_earlier_version_kept_is_not_enough(tmp_path: Path) -> None:
    folder = tmp_path / "kernel-9.9-cloud"
    modules = folder / "lib/modules/9.9/kernel/drivers"
    modules.mkdir(parents=True)
    (folder / "boot").mkdir()
    (folder / "boot/vmlinuz-9.9-cloud").write_bytes(b"kernel")
    assert find_kernel(tmp_path) == folder  # all built in, for all that is known
    (modules / "virtio_blk.ko").write_bytes(b"module")
    assert find_kernel(tmp_path) is None
    (modules / "virtio_mem.ko").write_bytes(b"module")
    assert find_kernel(tmp_path) == folder


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    """A cache that holds a kernel already, so that nothing is fetched."""
    if not Path("/bin/busybox").exists():
        pytest.skip("no static busybox on this machine")
    folder = tmp_path / "kernel-9.9-cloud"
    modules = folder / "lib/modules/9.9/kernel/drivers/virtio"
    modules.mkdir(parents=True)
    (folder / "boot").mkdir()
    (folder / "boot/vmlinuz-9.9-cloud").write_bytes(b"kernel")
    (modules / "virtio.ko").write_bytes(b"module")
    return tmp_path


def test_the_image_is_built_once_and_is_the_same_everywhere(
    unpacked: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    said: list[str] = []
    first = build_image(said.append, unpacked)
    assert said == ["building the guest's initramfs"]
    assert build_image(said.append, unpacked) == first
    assert len(said) == 1
    other = tmp_path_factory.mktemp("other") / "cache"
    shutil.copytree(unpacked / "kernel-9.9-cloud", other / "kernel-9.9-cloud")
    second = build_image(root=other)
    assert second.digest == first.digest
    assert Path(second.initrd).read_bytes() == Path(first.initrd).read_bytes()


def test_the_initramfs_holds_busybox_modules_and_scripts_that_a_shell_can_read(unpacked: Path) -> None:
    image = build_image(root=unpacked)
    archive = gzip.decompress(Path(image.initrd).read_bytes())
    assert archive.startswith(b"070701")
    for name in (b"init\0", b"bin/busybox\0", b"bin/records\0", b"lib/00-virtio.ko\0", b"TRAILER!!!\0"):
        assert name in archive
    start = archive.index(b"#!/bin/busybox sh\nb=")
    script = archive[start : archive.index(b"\0", start)]
    assert READY_MARK.encode() in script
    assert subprocess.run(["sh", "-n"], input=script, check=False).returncode == 0


def test_a_machine_without_apt_gets_told_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingPart, match="unpacked kernel package"):
        build_image(root=tmp_path / "cache")
