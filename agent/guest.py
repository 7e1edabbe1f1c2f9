"""One QEMU process: its command line, its start, and whether it still lives. It outlives the agent."""

import hashlib
import math
import os
import re
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Sequence
from functools import cache
from ipaddress import IPv4Interface
from pathlib import Path
from typing import BinaryIO, Protocol

from agent import memory_size, processes
from agent.attached_disk import disk_arguments
from agent.guest_scripts import READY_MARK, RECORD_PORT, WAITS_MARK
from agent.image import GuestImage
from agent.memory import BACKEND
from agent.monitor import SOCKET_NAME
from agent.wire import AttachedDisk, GuestProfile, MeasuredPerformance, NetworkMode
from engine.errors import MissingPart, ProviderUnavailable, UsageError
from engine.model.capacity import Resources
from engine.model.ids import MoveId, ShardId
from engine.model.value import Value
from engine.model.workload_image import WorkloadImage

QEMU = "qemu-system-x86_64"
_DISK = "vd0"
DISK_PATH = f"/machine/peripheral/{_DISK}/virtio-backend"
"""The guest's disk device in QEMU's object tree: where its throttle sits."""
OVERHEAD_MIB = 224
"""What QEMU itself may use beside the guest's memory: code cache, devices, mirror buffers."""
_CPU_BY_ACCELERATOR = {"tcg": "max", "kvm": "Nehalem"}
"""Named baselines, so that both ends of a move offer the same CPU; "max" is the same for one QEMU version under TCG."""
RUN_FOLDER = "run"
"""In a guest's folder: where its QEMU works, and the only place that it may write to beside its disk."""
TLS_FOLDER = "tls"
CONSOLE_SOCKET, CONSOLE_LOG = "console.sock", "serial.log"
MOST_CONSOLE_BYTES = 4 << 20
"""What is kept of what a guest writes, or it could fill the node's disk."""
_KVM = Path("/dev/kvm")
_COPY_SECONDS = 600
_ASK_SECONDS = 20.0
_FIRST_USER, _USERS = 61_184, 4_336
"""Numbers that systemd sets aside for users that nobody has entered anywhere."""
MEASURED = re.compile(r"^shardwright-measured (\w+) (\d+)\r?\n", re.MULTILINE)
"""With the line's end: a number is not to be read while half of it is written."""


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
    receiving: bool = False
    """Told to run before all its memory was here (post-copy): its source must live until it is."""
    booting: bool = False
    """Nobody has seen its workload up yet: an agent that finds this begins the boot again."""
    committing: bool = False
    """Told to run here, for good; only that it does has yet to be seen to."""
    ceded_epoch: int = 0
    """The epoch at which the store gave the shard to another node, 0: not given. What is left is a rollback copy."""
    handing_over: bool = False
    """The rest of it goes to the destination before the store has decided: it runs on only by the store's word."""
    move: MoveId | None = None
    sent_for: MoveId | None = None
    """The last move for which QEMU was told to send memory: what it says of a migration is about that one."""
    memory_port: int = 0
    disk_port: int = 0
    measured: MeasuredPerformance = MeasuredPerformance()
    limits_enforced: tuple[str, ...] = ()
    attached: AttachedDisk | None = None
    attached_with: int = 0
    """When the certificate was written (ns) that its connection was made with."""

    @property
    def speaks(self) -> bool:
        """Its image obeys words on the console."""
        return self.profile.image is None or self.profile.image.speaks

    @property
    def lives_here(self) -> bool:
        """It neither waits for a move nor was given away."""
        return not self.incoming and not self.ceded_epoch


def memory_mib(resources: Resources) -> int:
    return memory_size.mib(resources.memory_gib)


def virtual_cpus(resources: Resources, most: float | None = None) -> int:
    """Of a guest that boots with those resources and may be given ``most`` while it runs.

    Raises UsageError for less than it boots with.
    """
    if most is not None and most < resources.vcpus:
        raise UsageError("vCPUs cannot grow to less than they are", why=f"{most:g} of {resources.vcpus:g}")
    return max(1, math.ceil(resources.vcpus if most is None else most))


def command_line(
    record: GuestRecord, *, direct_io: bool, mtu: int | None, tap: int | None, restoring: bool = False
) -> list[str]:
    """QEMU's arguments; file names are relative to RUN_FOLDER, ``tap`` is an open tap's descriptor.

    Both ends of a move use the same, but for the descriptor. ``restoring``: it waits for a template.
    """
    machine, accelerator = f"{record.profile.machine},hpet=off", record.profile.accelerator
    machine += ",suppress-vmdesc=on" if record.profile.bare_stream else ""
    # On a busy host an emulated timer ticks too late for the kernel's test of it, which would then give up booting.
    # What the guest has freed is zero, so that a move need not send it: 54 of 128 MB are sent instead of 92.
    words = "console=ttyS0 quiet panic=1 mitigations=off no_timer_check init_on_free=1"
    if record.speaks:
        words += " shard.waits=1"  # for its identity, on the console: a template has none
    else:
        words += f" shard.address={record.address}" + (f" shard.mtu={mtu}" if mtu else "")
    boot_mib, growth_mib = record.profile.memory_mib or memory_mib(record.resources), record.profile.memory_growth_mib
    words += f" {memory_size.KERNEL_WORDS}" if growth_mib else ""
    own = record.profile.image
    if own is not None:
        words = f"{words} {own.kernel_words}".rstrip()
    cache_ = '"cache":{"direct":true}' if direct_io else '"cache":{}'
    arguments = [QEMU, "-name", f"guest={record.shard}", "-M", f"{machine},memory-backend=mem0"]
    # A memfd, so that the agent can compare the memory of both sides of a move (see agent.memory).
    arguments += ["-object", f"{BACKEND},id=mem0,size={boot_mib}M,share=on"]
    arguments += ["-accel", "tcg,tb-size=32" if accelerator == "tcg" else accelerator, "-cpu", record.profile.cpu]
    arguments += ["-smp", str(record.profile.cpus or virtual_cpus(record.resources))]
    arguments += ["-m", f"{boot_mib},maxmem={boot_mib + growth_mib}M" if growth_mib else str(boot_mib)]
    arguments += ["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]
    arguments += ["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]
    if own is None or own.kernel is not None:
        arguments += ["-kernel", "kernel", "-append", words]
    if own is None or own.initrd is not None:
        arguments += ["-initrd", "initrd"]
    if own is not None:  # a disk that boots itself is told here where it is
        arguments += ["-fw_cfg", f"name=opt/shardwright/address,string={record.address}"]
    console = f"socket,id=console,path={CONSOLE_SOCKET},server=on,wait=off,logfile={CONSOLE_LOG},logappend=on"
    arguments += ["-chardev", console, "-serial", "chardev:console", "-qmp", f"unix:{SOCKET_NAME},server=on,wait=off"]
    arguments += ["-netdev", _netdev(record, tap), "-device", f"virtio-net-pci,netdev=n0,mac={record.mac},romfile="]
    arguments += ["-blockdev", f'{{"driver":"file","filename":"../disk.raw","node-name":"f0",{cache_}}}']
    arguments += ["-blockdev", '{"driver":"raw","file":"f0","node-name":"d0"}']
    # The disk is throttled at the device (see ShardHost.apply_limits): a throttle node would sit above the node that a
    # move mirrors, and QEMU mirrors root nodes only.
    arguments += ["-device", f"virtio-blk-pci,drive=d0,id={_DISK}"]
    arguments += memory_size.devices(record.profile, BACKEND)
    if record.attached is not None:
        arguments += disk_arguments(record.attached)
    if record.incoming or restoring:
        # -S: the guest must not run before the store says that it belongs here.
        arguments += ["-incoming", "defer", "-S"]
    return arguments


def _netdev(record: GuestRecord, tap: int | None) -> str:
    if tap is not None:
        return f"tap,id=n0,fd={tap}"
    interface = IPv4Interface(record.address)
    last = interface.network.broadcast_address
    own = record.profile.image
    port = RECORD_PORT if own is None or own.ready.tcp_port is None else own.ready.tcp_port
    forward = f"hostfwd=tcp:127.0.0.1:{record.forwarded_port}-{interface.ip}:{port}"
    # Restricted: QEMU would else carry its packets as the node's own, to its loopback and its metadata address too.
    return f"user,id=n0,restrict=on,net={interface.network},host={last - 1},dns={last - 2},{forward}"


def start(
    arguments: list[str], folder: Path, *, user: int | None = None, groups: Sequence[int] = (), keep: Sequence[int] = ()
) -> subprocess.Popen[bytes]:
    """In a session of its own, so that nothing which ends the agent ends the guest. Works in RUN_FOLDER.

    ``user``: who it runs as, None: the agent's own user. ``keep``: descriptors that it inherits.
    """
    work = folder / RUN_FOLDER
    work.mkdir(exist_ok=True)
    try:
        with (folder / "qemu.log").open("ab") as log:
            process: subprocess.Popen[bytes] = subprocess.Popen(
                arguments, cwd=work, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                pass_fds=tuple(keep), user=user, group=user, extra_groups=None if user is None else list(groups),
            )  # fmt: skip
            return process
    except OSError as problem:
        raise MissingPart("QEMU cannot be started", why=str(problem), next_step="install qemu-system-x86") from problem


def lend(folder: Path, image: GuestImage, user: int | None) -> None:
    """Make RUN_FOLDER ready for a start, and give it and the disk to the guest's user. Nothing else becomes theirs."""
    folder.chmod(0o711)
    work = folder / RUN_FOLDER
    work.mkdir(exist_ok=True)
    for name in (CONSOLE_LOG, CONSOLE_SOCKET, SOCKET_NAME, "kernel", "initrd"):
        (work / name).unlink(missing_ok=True)
    lent = [(source, name) for source, name in ((image.kernel, "kernel"), (image.initrd, "initrd")) if source]
    for source, name in lent:
        try:
            os.link(source, work / name)
        except OSError:  # another file system
            shutil.copyfile(source, work / name)
    if user is not None:
        for _, name in lent:
            (work / name).chmod(0o644)  # neither is a secret, and what built them may have been careful
        for path in (work, folder / "disk.raw"):
            os.chown(path, user, user)


def lend_volume(folder: Path, disk: Path, user: int | None) -> None:
    """Make the run folder of a disk's server ready, and give it and the disk to the server's user."""
    work = folder / RUN_FOLDER
    work.mkdir(exist_ok=True)
    for path in (disk.parent, folder):
        path.chmod(0o711)
    if user is not None:
        for path in (work, disk):
            os.chown(path, user, user)


def lend_tls(source: Path, folder: Path, user: int | None, name: str = TLS_FOLDER) -> str:
    """The node's key and certificate for one purpose, readable by the user; the folder as QEMU shall name it."""
    target = folder / name
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(mode=0o700)
    for file in source.glob("*.pem"):
        copied = Path(shutil.copy(file, target))
        copied.chmod(0o440)
        if user is not None:
            os.chown(copied, -1, user)
    if user is not None:
        os.chown(target, -1, user)
        target.chmod(0o750)
    return f"../{name}"


def user_for(folder: Path, accelerator: str) -> int | None:
    """A user of its own for the guest in ``folder``; None: the agent is no root, or it cannot be had here."""
    if os.geteuid() != 0 or (accelerator == "kvm" and _KVM.stat().st_mode & 0o060 != 0o060):
        return None
    digest = hashlib.sha256(str(folder.resolve()).encode()).digest()
    user = _FIRST_USER + int.from_bytes(digest[:4]) % _USERS
    return user if _is_mapped(user, Path("/proc/self/uid_map").read_text()) else None


def _is_mapped(user: int, uid_map: str) -> bool:
    """Whether this user namespace has the user."""
    spans = ((int(start), int(count)) for start, _, count in map(str.split, uid_map.splitlines()))
    return any(start <= user < start + count for start, count in spans)


def device_groups(accelerator: str) -> tuple[int, ...]:
    """What an unprivileged QEMU must belong to for its accelerator's device."""
    return (_KVM.stat().st_gid,) if accelerator == "kvm" else ()


def create_disk(path: Path, mib: int, image: str = "") -> int:
    """A sparse raw disk of MiB, empty or a copy of ``image``; one that is there already is kept. Its size in MiB.

    Raises MissingPart where the image cannot be copied.
    """
    if not path.exists():
        scratch = path.with_suffix(".new")
        scratch.unlink(missing_ok=True)
        if image:
            _copy(image, scratch)
        with scratch.open("ab") as disk:
            disk.truncate(max(mib, math.ceil(disk.tell() / (1 << 20))) << 20)
        scratch.rename(path)
    return path.stat().st_size >> 20


def _copy(image: str, scratch: Path) -> None:
    command = ["cp", "--sparse=always", "--reflink=auto", "--", image, str(scratch)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_COPY_SECONDS, check=False)
        why = done.stderr.strip()[-400:] if done.returncode else ""
    except subprocess.TimeoutExpired:
        why = f"not within {_COPY_SECONDS} s"
    if why:
        scratch.unlink(missing_ok=True)
        raise MissingPart("the image's disk cannot be copied", why=why)


def supports_direct_io(path: Path) -> bool:
    """Not every file system (an old tmpfs) takes O_DIRECT."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_DIRECT))
    except OSError:
        return False
    return True


def start_ticks(pid: int) -> int:
    """When the process began, in ticks since boot; 0 when it is gone or a zombie."""
    found = processes.look(pid)
    return 0 if found is None else found[1]


class Marked(Protocol):
    """Names one process, even when pids come round again."""

    @property
    def pid(self) -> int: ...

    @property
    def start_ticks(self) -> int: ...


def alive(record: Marked) -> bool:
    return record.pid > 0 and record.start_ticks > 0 and start_ticks(record.pid) == record.start_ticks


def stopped(record: GuestRecord) -> bool:
    """By a signal: its run lease has run out."""
    return processes.look(record.pid) == ("T", record.start_ticks)


def kill(record: Marked, *, seconds: float = 5.0) -> bool:
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
    """What the guest has written, the end of it where that is much; ``folder`` is where its QEMU works."""
    try:
        with _open_console(folder, os.O_RDONLY) as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - MOST_CONSOLE_BYTES))
            said: bytes = log.read(MOST_CONSOLE_BYTES)
    except OSError:
        return ""
    return said.decode(errors="replace").replace("\r\n", "\n")


def cut_console(folder: Path) -> bool:
    """Empty what the guest has written where it is too much; QEMU appends, so that it writes on from the beginning."""
    try:
        with _open_console(folder, os.O_RDWR) as log:
            too_much = log.seek(0, os.SEEK_END) > MOST_CONSOLE_BYTES
            if too_much:
                log.truncate(0)
            return too_much
    except OSError:
        return False


def _open_console(folder: Path, flags: int) -> BinaryIO:
    """Raises OSError. The folder is the guest's user's: no link there is followed, and no pipe waited for."""
    handle = os.open(folder / CONSOLE_LOG, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    log = os.fdopen(handle, "rb" if flags == os.O_RDONLY else "r+b")
    status = os.fstat(log.fileno())
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        log.close()
        raise OSError(f"{CONSOLE_LOG} is no file of its own")
    return log


def waits(folder: Path) -> bool:
    """For its identity."""
    return WAITS_MARK in console(folder)


def is_ready(folder: Path) -> bool:
    return READY_MARK in console(folder)


def measured(folder: Path, boot_seconds: float | None, *, from_template: bool = False) -> MeasuredPerformance:
    """What the guest wrote about itself while it booted."""
    said = {name: int(value) for name, value in MEASURED.findall(console(folder))}
    return MeasuredPerformance(
        boot_seconds=boot_seconds,
        from_template=from_template,
        cpu_rounds_per_second=said.get("cpu_rounds_per_second"),
        read_iops=said.get("read_iops"),
        memory_mib=said["memory_kib"] // 1024 if "memory_kib" in said else None,
    )


@cache
def qemu_version() -> str:
    """Raises MissingPart, ProviderUnavailable when QEMU does not answer."""
    match = re.search(r"version (\S+)", _ask("--version"))
    return match.group(1) if match else "unknown"


@cache
def default_machine() -> str:
    """The versioned name behind "pc": a later QEMU with the same name still takes this guest."""
    match = re.search(r"^pc\s.*\(alias of (\S+?)\)", _ask("-M", "help"), re.MULTILINE)
    return match.group(1) if match else "pc"


def profile(
    accelerator: str,
    image: GuestImage,
    resources: Resources,
    grows_to_gib: float | None = None,
    own: WorkloadImage | None = None,
    vcpus_grow_to: float | None = None,
) -> GuestProfile:
    """Of a guest that boots with those resources. Raises UsageError when it should grow to less than it has."""
    boot_mib, most_mib = memory_mib(resources), None if grows_to_gib is None else memory_size.mib(grows_to_gib)
    if own is not None and own.kernel is None and most_mib is None:
        most_mib = boot_mib  # its kernel is not told the words that it would need (memory_size.KERNEL_WORDS)
    return GuestProfile(
        qemu_version=qemu_version(),
        machine=default_machine(),
        accelerator=accelerator,
        cpu=_CPU_BY_ACCELERATOR[accelerator],
        image_digest=image.digest,
        memory_mib=boot_mib,
        image=own,
        memory_growth_mib=memory_size.growth_mib(boot_mib, most_mib),
        cpus=virtual_cpus(resources, vcpus_grow_to),
        bare_stream=True,
    )


def _ask(*arguments: str) -> str:
    if shutil.which(QEMU) is None:
        raise MissingPart("QEMU is not installed", next_step="apt-get install qemu-system-x86")
    try:
        done = subprocess.run([QEMU, *arguments], capture_output=True, text=True, timeout=_ASK_SECONDS, check=False)
    except subprocess.TimeoutExpired as problem:
        what, why = f"{QEMU} {' '.join(arguments)} does not end", f"it was given {_ASK_SECONDS:g} s"
        raise ProviderUnavailable(what, why=why) from problem
    return done.stdout
