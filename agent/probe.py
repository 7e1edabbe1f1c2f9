"""Which accelerator guests get here. A /dev/kvm that opens proves nothing: a guest must boot with it."""

import os
import subprocess
import time
from fcntl import LOCK_EX, flock
from pathlib import Path

from agent.guest import QEMU, default_machine, is_ready, qemu_version
from agent.image import GuestImage
from engine.model.value import Value

BOOT_SECONDS = 5.0
_POLL_SECONDS = 0.05


class ProbeResult(Value):
    """Good for one boot of the host and one QEMU; ``accelerator`` is kvm or tcg."""

    boot_id: str
    qemu_version: str
    accelerator: str
    reason: str


def accelerator(image: GuestImage, folder: Path, device: Path = Path("/dev/kvm")) -> ProbeResult:
    """Blocks for at most BOOT_SECONDS the first time; later answers come from ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    answer_file = folder / "accelerator.json"
    with (folder / "accelerator.lock").open("w") as lock:
        flock(lock, LOCK_EX)
        known = _read(answer_file)
        if known is not None and (known.boot_id, known.qemu_version) == (boot_id, qemu_version()):
            return known
        proven, reason = _probe(image, folder, device)
        result = ProbeResult(
            boot_id=boot_id, qemu_version=qemu_version(), accelerator="kvm" if proven else "tcg", reason=reason
        )
        answer_file.write_text(result.model_dump_json())
        return result


def _read(path: Path) -> ProbeResult | None:
    try:
        return ProbeResult.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        return None


def _probe(image: GuestImage, folder: Path, device: Path) -> tuple[bool, str]:
    if not device.exists():
        return False, f"{device} is not there"
    if not os.access(device, os.R_OK | os.W_OK):
        return False, f"{device} cannot be opened"
    serial = folder / "serial.log"
    serial.unlink(missing_ok=True)
    command = [QEMU, "-M", default_machine(), "-accel", "kvm", "-cpu", "Nehalem", "-m", "128", "-nodefaults"]
    command += ["-no-user-config", "-no-reboot", "-display", "none", "-serial", "file:serial.log"]
    command += ["-kernel", image.kernel, "-initrd", image.initrd, "-append", "console=ttyS0 quiet panic=1"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as guest:
        end = time.monotonic() + BOOT_SECONDS
        try:
            while time.monotonic() < end:
                if is_ready(folder):
                    return True, "a test guest booted"
                if guest.poll() is not None:
                    return False, "QEMU cannot use it"
                time.sleep(_POLL_SECONDS)
            return False, f"a test guest did not boot within {BOOT_SECONDS:g} s"
        finally:
            guest.kill()
