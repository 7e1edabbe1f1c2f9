"""One QEMU process: its command line, its start, and whether it still lives. It outlives the agent."""

import math
import os
import re
import shutil
import signal
import subprocess
import time
from functools import cache
from ipaddress import IPv4Interface
from pathlib import Path

from agent.image import READY_MARK, RECORD_PORT, GuestImage
from agent.memory import BACKEND
from agent.monitor import SOCKET_NAME
from agent.wire import GuestProfile, MeasuredPerformance, NetworkMode
from engine.errors import MissingPart
from engine.model.capacity import Resources
from engine.model.ids import MoveId, ShardId
from engine.model.value import Value

QEMU = "qemu-system-x86_64"
_DISK = "vd0"
DISK_PATH = f"/machine/peripheral/{_DISK}/virtio-backend"
"""The guest's disk device in QEMU's object tree: where its throttle sits."""
OVERHEAD_MIB = 224
"""What QEMU itself may use beside the guest's memory: code cache, devices, mirror buffers."""
_CPU_BY_ACCELERATOR = {"tcg": "max", "kvm": "Nehalem"}
"""Named baselines, so that both ends of a move offer the same CPU; "max" is the same for one QEMU version under TCG."""
_MEASURED = re.compile(r"^shardwright-measured (\w+) (\d+)\r?$", re.MULTILINE)


class GuestRecord(Value):
    """What the agent must know about a guest after its own restart: ``shard.json`` in the guest's folder."""

    shard: ShardId
    resources: Resources
    image: str
    address: str
    mac: str
    disk_mib: int
    profile: GuestProfile
    network: NetworkMode
    forwarded_port: int | None = None
    tap: str | None = None
    pid: int = 0
    start_ticks: int = 0
    """With the pid: names one process, even when pids come round again."""
    incoming: bool = False
    """Started for a move and not committed yet: it has never run here."""
    committing: bool = False
    """Told to run here, for good; only that it does has yet to be seen to."""
    ceded_epoch: int = 0
    """The epoch at which the store gave the shard to another node, 0: not given. What is left is a rollback copy."""
    move: MoveId | None = None
    memory_port: int = 0
    disk_port: int = 0
    measured: MeasuredPerformance = MeasuredPerformance()
    limits_enforced: tuple[str, ...] = ()


def memory_mib(resources: Resources) -> int:
    return round(resources.memory_gib * 1024)


def command_line(record: GuestRecord, image: GuestImage, *, direct_io: bool, mtu: int | None) -> list[str]:
    """QEMU's arguments; file names are relative to the guest's folder. Both ends of a move use the same."""
    machine, accelerator = f"{record.profile.machine},hpet=off", record.profile.accelerator
    # On a busy host an emulated timer ticks too late for the kernel's test of it, which would then give up booting.
    words = f"console=ttyS0 quiet panic=1 mitigations=off no_timer_check shard.address={record.address}"
    words += f" shard.mtu={mtu}" if mtu else ""
    cache_ = '"cache":{"direct":true}' if direct_io else '"cache":{}'
    arguments = [QEMU, "-name", f"guest={record.shard}", "-M", f"{machine},memory-backend=mem0"]
    # A memfd, so that the agent can compare the memory of both sides of a move (see agent.memory).
    arguments += ["-object", f"{BACKEND},id=mem0,size={memory_mib(record.resources)}M,share=on"]
    arguments += ["-accel", "tcg,tb-size=32" if accelerator == "tcg" else accelerator, "-cpu", record.profile.cpu]
    arguments += ["-smp", str(max(1, math.ceil(record.resources.vcpus))), "-m", str(memory_mib(record.resources))]
    arguments += ["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]
    arguments += ["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]
    arguments += ["-kernel", image.kernel, "-initrd", image.initrd, "-append", words]
    arguments += ["-serial", "file:serial.log", "-qmp", f"unix:{SOCKET_NAME},server=on,wait=off"]
    arguments += ["-netdev", _netdev(record), "-device", f"virtio-net-pci,netdev=n0,mac={record.mac},romfile="]
    arguments += ["-blockdev", f'{{"driver":"file","filename":"disk.raw","node-name":"f0",{cache_}}}']
    arguments += ["-blockdev", '{"driver":"raw","file":"f0","node-name":"d0"}']
    # The disk is throttled at the device (see ShardHost.apply_limits): a throttle node would sit above the node that a
    # move mirrors, and QEMU mirrors root nodes only.
    arguments += ["-device", f"virtio-blk-pci,drive=d0,id={_DISK}"]
    if record.incoming:
        # -S: the guest must not run before the store says that it belongs here.
        arguments += ["-incoming", "defer", "-S"]
    return arguments


def _netdev(record: GuestRecord) -> str:
    if record.network is NetworkMode.BRIDGE:
        return f"tap,id=n0,ifname={record.tap},script=no,downscript=no"
    interface = IPv4Interface(record.address)
    last = interface.network.broadcast_address
    forward = f"hostfwd=tcp:127.0.0.1:{record.forwarded_port}-{interface.ip}:{RECORD_PORT}"
    return f"user,id=n0,net={interface.network},host={last - 1},dns={last - 2},{forward}"


def start(arguments: list[str], folder: Path) -> subprocess.Popen[bytes]:
    """In a session of its own, so that nothing which ends the agent ends the guest."""
    try:
        with (folder / "qemu.log").open("ab") as log:
            return subprocess.Popen(
                arguments, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
    except OSError as problem:
        raise MissingPart("QEMU cannot be started", why=str(problem), next_step="install qemu-system-x86") from problem


def create_disk(path: Path, mib: int) -> None:
    """A sparse raw disk; one that is there already is kept."""
    if not path.exists():
        with path.open("wb") as disk:
            disk.truncate(mib * 1024 * 1024)


def supports_direct_io(path: Path) -> bool:
    """Not every file system (an old tmpfs) takes O_DIRECT."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_DIRECT))
    except OSError:
        return False
    return True


def start_ticks(pid: int) -> int:
    """When the process began, in ticks since boot; 0 when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in "ZX" else int(fields[19])


def alive(record: GuestRecord) -> bool:
    return record.pid > 0 and record.start_ticks > 0 and start_ticks(record.pid) == record.start_ticks


def kill(record: GuestRecord, *, seconds: float = 5.0) -> bool:
    """SIGKILL that very process and wait until it is gone; True once it is proven dead."""
    if alive(record):
        try:
            os.kill(record.pid, signal.SIGKILL)
        except ProcessLookupError:
            return True
    end = time.monotonic() + seconds
    while alive(record):
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


def console(folder: Path) -> str:
    try:
        return (folder / "serial.log").read_text(errors="replace")
    except OSError:
        return ""


def is_ready(folder: Path) -> bool:
    return READY_MARK in console(folder)


def measured(folder: Path, boot_seconds: float | None) -> MeasuredPerformance:
    """What the guest wrote about itself while it booted."""
    said = {name: int(value) for name, value in _MEASURED.findall(console(folder))}
    return MeasuredPerformance(
        boot_seconds=boot_seconds,
        cpu_rounds_per_second=said.get("cpu_rounds_per_second"),
        read_iops=said.get("read_iops"),
    )


@cache
def qemu_version() -> str:
    """Raises MissingPart."""
    match = re.search(r"version (\S+)", _ask("--version"))
    return match.group(1) if match else "unknown"


@cache
def default_machine() -> str:
    """The versioned name behind "pc": a later QEMU with the same name still takes this guest."""
    match = re.search(r"^pc\s.*\(alias of (\S+?)\)", _ask("-M", "help"), re.MULTILINE)
    return match.group(1) if match else "pc"


def profile(accelerator: str, image: GuestImage) -> GuestProfile:
    return GuestProfile(
        qemu_version=qemu_version(),
        machine=default_machine(),
        accelerator=accelerator,
        cpu=_CPU_BY_ACCELERATOR[accelerator],
        image_digest=image.digest,
    )


def _ask(*arguments: str) -> str:
    if shutil.which(QEMU) is None:
        raise MissingPart("QEMU is not installed", next_step="apt-get install qemu-system-x86")
    done = subprocess.run([QEMU, *arguments], capture_output=True, text=True, timeout=20, check=False)
    return done.stdout
