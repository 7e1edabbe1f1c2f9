from pathlib import Path

import pytest

from agent import probe
from agent.guest_scripts import READY_MARK
from agent.image import GuestImage
from agent.probe import ProbeResult, accelerator

IMAGE = GuestImage(name="records", kernel="/k", initrd="/i", kernel_version="6", digest="d")


@pytest.fixture(autouse=True)
def qemu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A program in QEMU's place; by default it ends at once."""
    program = tmp_path / "qemu"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o700)
    monkeypatch.setattr(probe, "QEMU", str(program))
    monkeypatch.setattr(probe, "qemu_version", lambda: "7.2")
    monkeypatch.setattr(probe, "default_machine", lambda: "pc-i440fx-7.2")
    return program


def device(tmp_path: Path) -> Path:
    (tmp_path / "kvm").touch()
    return tmp_path / "kvm"


def test_no_device_needs_no_probe(tmp_path: Path) -> None:
    found = accelerator(IMAGE, tmp_path / "p", tmp_path / "nothing")
    assert (found.accelerator, found.reason) == ("tcg", f"{tmp_path}/nothing is not there")


def test_a_device_that_opens_but_runs_nothing_is_not_believed(tmp_path: Path) -> None:
    assert accelerator(IMAGE, tmp_path / "p", device(tmp_path)).accelerator == "tcg"


def test_a_guest_that_hangs_is_given_up_and_killed(tmp_path: Path, qemu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "BOOT_SECONDS", 0.2)
    qemu.write_text("#!/bin/sh\nexec sleep 60\n")
    found = accelerator(IMAGE, tmp_path / "p", device(tmp_path))
    assert (found.accelerator, found.reason) == ("tcg", "a test guest did not boot within 0.2 s")


def test_a_guest_that_boots_proves_it(tmp_path: Path, qemu: Path) -> None:
    qemu.write_text(f"#!/bin/sh\necho {READY_MARK} > serial.log\nexec sleep 60\n")
    assert accelerator(IMAGE, tmp_path / "p", device(tmp_path)).accelerator == "kvm"


def test_the_answer_is_kept_for_this_boot_and_this_qemu(
    tmp_path: Path, qemu: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = accelerator(IMAGE, tmp_path / "p", device(tmp_path))
    qemu.write_text(f"#!/bin/sh\necho {READY_MARK} > serial.log\nexec sleep 60\n")
    assert accelerator(IMAGE, tmp_path / "p", device(tmp_path)) == first
    monkeypatch.setattr(probe, "qemu_version", lambda: "8.0")
    assert accelerator(IMAGE, tmp_path / "p", device(tmp_path)).accelerator == "kvm"
    old = ProbeResult(boot_id="another boot", qemu_version="8.0", accelerator="tcg", reason="")
    (tmp_path / "p/accelerator.json").write_text(old.model_dump_json())
    assert accelerator(IMAGE, tmp_path / "p", device(tmp_path)).accelerator == "kvm"


def test_a_broken_answer_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p/accelerator.json").write_text("{")
    assert accelerator(IMAGE, tmp_path / "p", tmp_path / "nothing").accelerator == "tcg"
