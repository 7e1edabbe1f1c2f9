"""Taking a sandbox away, whoever is left of it: every part is found by the sandbox's tag, so no list can be stale.

Idempotent; safe to run beside a supervisor that is doing the same. Standard library only (the reaper imports this).
"""

import contextlib
import os
import re
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from providers.sandbox import processes

TAG_PATTERN = re.compile(r"^(sw[0-9a-f]{6})(?:u|-.*)?$")
"""What the names of a sandbox's parts look like; group 1 is the tag."""
STATE_FILES = ("sandbox.json", "sandbox.json.new", "supervisor.log")
STATE_FOLDERS = ("nodes", "logs", "tls", "attestation")
"""What a sandbox leaves in its state folder; nothing else there is touched."""
_CGROUPS = Path("/sys/fs/cgroup")
_LINKS = Path("/sys/class/net")
_COMMAND_SECONDS = 5
_GRACE_SECONDS = 1.0


@dataclass(frozen=True)
class Leftover:
    """Something on this machine that belongs to a sandbox."""

    kind: str
    """process, namespace, link, cgroup"""
    name: str
    tag: str
    """"" where it cannot be told (the cgroup of a shard)."""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}" + (f" ({self.tag})" if self.tag else "")


def new_tag() -> str:
    return f"sw{secrets.token_hex(3)}"


def cgroup_name(tag: str) -> str:
    return f"shardwright-{tag}"


def shard_groups(node: str) -> list[Path]:
    """The cgroups that a node's agent made for its shards (shardwright/NODE.SHARD). One in use cannot be removed."""
    return [path for path in _shard_groups() if path.name.startswith(f"{node}.")]


def leftovers(tag: str | None = None, *, ignore: Collection[int] = ()) -> list[Leftover]:
    """Everything that belongs to the sandbox ``tag``, or to any sandbox."""

    def wanted(found: str) -> bool:
        return tag is None or found == tag

    ignored = {os.getpid(), *ignore}
    found = [
        Leftover("process", f"{pid} {_command(pid)}", owner)
        for pid, owner in sorted(processes.tagged(wanted).items())
        if pid not in ignored
    ]
    for kind, folder in (("namespace", Path("/run/netns")), ("link", _LINKS)):
        found += [Leftover(kind, name, owner) for name, owner in _ours(folder) if wanted(owner)]
    found += [Leftover("cgroup", str(path), owner) for path, owner in _cgroups() if wanted(owner)]
    if tag is None:
        found += [Leftover("cgroup", str(path), "") for path in _shard_groups()]
    return found


def tear_down(tag: str, state_dir: Path | None, *, spare: Collection[int] = ()) -> list[Leftover]:
    """End, remove, delete; what is left (normally nothing). ``spare``: pids that take part in the teardown itself."""
    spared = {os.getpid(), *spare}
    inodes = processes.namespace_inodes(processes.namespace_names(f"{tag}-"))

    def on_nodes() -> set[int]:
        by_marker = processes.tagged(lambda value: value.startswith(f"{tag}/"), processes.NODE_MARKER)
        by_group = processes.in_cgroups(path for path, owner in _cgroups() if owner == tag)
        return _living((set(by_marker) | processes.in_namespaces(inodes) | by_group) - spared)

    def ours() -> set[int]:
        return _living(set(processes.tagged(lambda value: value == tag)) - spared)

    processes.end_all(on_nodes, grace_seconds=0.0)  # a node loses power; nothing on it is worth a goodbye
    processes.end_all(ours, grace_seconds=_GRACE_SECONDS)
    for name in processes.namespace_names(f"{tag}-"):
        _run("ip", "netns", "del", name)
    for name, owner in _ours(_LINKS):
        if owner == tag:
            _run("ip", "link", "del", name)
    remove_dead_sockets()
    _remove_cgroups(tag)
    if state_dir is not None:
        for name in _node_names(state_dir):
            for group in shard_groups(name):
                remove_cgroup(group)
        clear_state(state_dir)
    return leftovers(tag, ignore=spared)


def remove_dead_sockets(folder: Path = Path("/var/run/wireguard")) -> None:
    """What the wireguard-go processes of killed agents leave in the folder that all of this machine's share."""
    for path in folder.glob("swwg*.sock") if folder.is_dir() else ():
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, contextlib.suppress(OSError):
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()


def clear_state(state_dir: Path) -> None:
    """Only what a sandbox puts there; the folder itself goes when that leaves it empty."""
    for folder in STATE_FOLDERS:
        shutil.rmtree(state_dir / folder, ignore_errors=True)
    for name in STATE_FILES:
        with contextlib.suppress(OSError):
            (state_dir / name).unlink()
    with contextlib.suppress(OSError):
        state_dir.rmdir()


def _living(pids: set[int]) -> set[int]:
    return {pid for pid in pids if not processes.is_zombie(pid)}


def _ours(folder: Path) -> Iterator[tuple[str, str]]:
    """(name, tag) of entries that carry a sandbox's tag."""
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError:
        return
    for name in names:
        if match := TAG_PATTERN.match(name):
            yield name, match.group(1)


def _cgroups() -> list[tuple[Path, str]]:
    """(folder, tag) of the sandboxes' top cgroups, in every hierarchy that is mounted (v1 and v2)."""
    prefix = cgroup_name("")
    found = []
    for pattern in (f"{prefix}sw*", f"*/{prefix}sw*"):
        for path in _CGROUPS.glob(pattern):
            if not path.parent.is_symlink() and (match := TAG_PATTERN.match(path.name.removeprefix(prefix))):
                found.append((path, match.group(1)))
    return found


def _shard_groups() -> list[Path]:
    return [
        path for pattern in ("shardwright/*", "*/shardwright/*") for path in _CGROUPS.glob(pattern) if path.is_dir()
    ]


def _node_names(state_dir: Path) -> list[str]:
    try:
        return [entry.name for entry in (state_dir / "nodes").iterdir()]
    except OSError:
        return []


def _remove_cgroups(tag: str) -> None:
    for path, owner in _cgroups():
        if owner == tag:
            remove_cgroup(path)


def remove_cgroup(path: Path, *, limit_seconds: float = 1.0) -> None:
    """Bottom up. The kernel answers EBUSY for a moment after the last process has died."""
    deadline = time.monotonic() + limit_seconds
    while path.exists() and time.monotonic() < deadline:
        for folder, _, _ in os.walk(path, topdown=False):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()
        if path.exists():
            time.sleep(0.02)
    if path.parent.name == "shardwright" or path.parent.name.startswith(cgroup_name("sw")):
        with contextlib.suppress(OSError):
            path.parent.rmdir()  # goes with its last group


def _run(*command: str) -> None:
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(command, capture_output=True, timeout=_COMMAND_SECONDS, check=False)


def _command(pid: int) -> str:
    try:
        return (Path("/proc") / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""
