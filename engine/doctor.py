"""Every part that Shardwright stands on: is it there, which version, from where, and how to mend it."""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata
from pathlib import Path

from engine.model.value import Value

_PACKAGES = ("pulumi", "pulumi-aws", "pulumi-gcp", "pulumi-azure-native", "pulumi-policy", "boto3", "torch", "pandas")
_PROBE_SECONDS = 10


class Part(Value):
    """One part. ``needed_for`` is empty for what everything needs; ``ok`` False with that set costs only that."""

    name: str
    ok: bool
    version: str = ""
    origin: str = ""
    needed_for: str = ""
    remedy: str = ""


Check = Callable[[], Part]


def examine(extra: Iterable[Check] = ()) -> tuple[Part, ...]:
    """Every part, each checked now; ``extra`` are the checks of parts that other packages own."""
    checks: list[Check] = [_python, *(_package(name) for name in _PACKAGES)]
    checks += [
        _program("qemu-system-x86_64", "apt-get install qemu-system-x86", "shards"),
        _program("qemu-img", "apt-get install qemu-utils", "shards"),
        _program("qemu-storage-daemon", "apt-get install qemu-system-x86", "storage from another node"),
        _program("ip", "apt-get install iproute2", "nodes in namespaces"),
        _program("nsenter", "apt-get install util-linux", "nodes in namespaces"),
        _program("nft", "apt-get install nftables", "the overlay between nodes"),
        _program("wg", "apt-get install wireguard-tools", "the overlay between nodes"),
        _root,
        _tun,
        _kvm,
        _cgroups,
        _program(
            "go",
            "only where Pulumi's own download is out of reach: install Go >= 1.25",
            "building Pulumi and wireguard-go",
        ),
        _program("chromium", "apt-get install chromium", "the web page's tests"),
    ]
    return tuple(check() for check in [*checks, *extra])


def healthy(parts: Sequence[Part]) -> bool:
    """Whether everything that is needed by all is there."""
    return all(part.ok for part in parts if not part.needed_for)


def _python() -> Part:
    return Part(
        name="python",
        ok=sys.version_info >= (3, 11),
        version=platform.python_version(),
        origin=sys.prefix,
        remedy="install Python >= 3.11, remove .venv, make setup",
    )


def _package(name: str) -> Check:
    def check() -> Part:
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            return Part(name=name, ok=False, remedy="make setup")
        return Part(name=name, ok=True, version=found.version, origin=str(found.locate_file("")))

    return check


def _program(name: str, remedy: str, needed_for: str) -> Check:
    def check() -> Part:
        path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
        if path is None:
            return Part(name=name, ok=False, needed_for=needed_for, remedy=remedy)
        version = _first_line([path, "version" if name == "go" else "-V" if name == "ip" else "--version"])
        return Part(name=name, ok=True, version=version, origin=path, needed_for=needed_for)

    return check


def _first_line(command: Sequence[str]) -> str:
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=_PROBE_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "?"
    return (result.stdout or result.stderr).strip().partition("\n")[0]


def _root() -> Part:
    return Part(
        name="root",
        ok=os.geteuid() == 0,
        version=f"uid {os.geteuid()}",
        needed_for="nodes in namespaces, live moves that keep connections",
        remedy="run as root (sudo make demo); without it nodes share the loopback addresses",
    )


def _tun() -> Part:
    return Part(
        name="/dev/net/tun",
        ok=Path("/dev/net/tun").exists(),
        needed_for="shards on the overlay",
        remedy="modprobe tun",
    )


def _kvm() -> Part:
    there = os.access("/dev/kvm", os.R_OK | os.W_OK)
    return Part(
        name="/dev/kvm",
        ok=there,
        version="device present; each agent proves it by booting a guest" if there else "",
        needed_for="fast shards (TCG is used without it)",
        remedy="enable (nested) virtualization",
    )


def _cgroups() -> Part:
    unified = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    legacy = Path("/sys/fs/cgroup/cpu").exists()
    return Part(
        name="cgroups",
        ok=unified or legacy,
        version="v2" if unified else "v1" if legacy else "",
        needed_for="CPU and memory limits of shards",
        remedy="mount cgroup2 on /sys/fs/cgroup",
    )
