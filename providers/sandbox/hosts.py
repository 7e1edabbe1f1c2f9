"""The node host: behind every running instance that has user data, a node that boots from it.

It polls the servers, starts a node for an instance that runs, and cuts the power of one whose instance has ended: every
process on it is killed, its place and its disk are gone. What user data writes stays in console.log.
"""

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from engine.errors import ProviderError, ShardwrightError
from providers.sandbox import processes
from providers.sandbox.contract import InstanceState, SandboxInstance, SandboxNotice
from providers.sandbox.nodes import HostedNode, HostedNodes, Place
from providers.sandbox.places import Places
from providers.sandbox.servers import ServerClient
from providers.sandbox.teardown import cgroup_name, remove_cgroup, shard_groups

POLL_SECONDS = 0.3
_CGROUPS = Path("/sys/fs/cgroup")
_CONTROLLERS = ("cpu", "memory", "pids", "unified")
"""Hierarchies (version 1, or mixed) in which every node gets a group; the root itself where all is version 2."""
_INTO_GROUPS = 'while [ "$1" != -- ]; do echo 0 > "$1" || exit 125; shift; done; shift; exec "$@"'
Key = tuple[str, str]
"""(provider, instance id)"""


@dataclass(frozen=True)
class Source:
    """A provider server to watch."""

    name: str
    kind: str
    account: str
    client: ServerClient


@dataclass
class _Running:
    place: Place
    folder: Path
    boot: subprocess.Popen[bytes]
    groups: tuple[Path, ...] = field(default=())


class NodeHost:
    """Owns the nodes of one sandbox; ``tick`` is one poll, ``run`` polls until told to stop."""

    def __init__(
        self,
        sources: Sequence[Source],
        places: Places,
        nodes: HostedNodes,
        *,
        tag: str,
        state_dir: Path,
        say: Callable[[str], None],
    ) -> None:
        self._sources, self._places, self._nodes = sources, places, nodes
        self._tag, self._folder, self._say = tag, state_dir / "nodes", say
        self._running: dict[Key, _Running] = {}
        self._complained: dict[str, str] = {}
        self._failed: set[Key] = set()

    def run(self, stop: threading.Event) -> None:
        while not stop.wait(POLL_SECONDS):
            self.tick()

    def tick(self) -> None:
        """Bring the nodes in line with the instances. A server that does not answer keeps its nodes as they are."""
        hosted: list[HostedNode] = []
        for source in self._sources:
            try:
                instances, notices = source.client.instances(), source.client.notices()
            except ProviderError as error:
                self._complain(source.name, str(error))
                hosted += [node for node in self._nodes.all() if node.provider == source.name]
                continue
            self._complained.pop(source.name, None)
            hosted += self._follow(source, instances, {notice.instance_id: notice for notice in notices})
        self._nodes.replace(hosted)
        for running in self._running.values():
            running.boot.poll()

    def stop(self) -> None:
        """Cut the power of every node."""
        for key in list(self._running):
            self._stop_node(key)
        self._nodes.replace([])

    def _follow(
        self, source: Source, instances: Sequence[SandboxInstance], notices: Mapping[str, SandboxNotice]
    ) -> list[HostedNode]:
        wanted = {
            (source.name, instance.instance_id): instance
            for instance in instances
            if instance.state is InstanceState.RUNNING and instance.user_data
        }
        for key in [key for key in self._running if key[0] == source.name and key not in wanted]:
            self._stop_node(key)
        hosted = []
        for (_, instance_id), instance in wanted.items():
            node = self._node(source, instance, notices.get(instance_id))
            if node is not None:
                hosted.append(node)
        return hosted

    def _node(self, source: Source, instance: SandboxInstance, notice: SandboxNotice | None) -> HostedNode | None:
        """The node behind a running instance, booted now if need be; None: it could not be made."""
        key = (source.name, instance.instance_id)
        running = self._running.get(key)
        place = running.place if running is not None else self._attach(key, instance)
        if place is None:
            return None
        node = HostedNode(
            provider=source.name,
            kind=source.kind,
            account=source.account,
            place=place,
            instance=instance,
            notice=notice,
        )
        if running is None:
            self._nodes.put(node)  # before it boots: the first thing it asks may be its metadata
            return node if self._start(key, place, instance) else None
        return node

    def _attach(self, key: Key, instance: SandboxInstance) -> Place | None:
        if key in self._failed:
            return None
        name = self._free_name(instance)
        try:
            return self._places.attach(name)
        except (ShardwrightError, OSError) as error:
            self._failed.add(key)
            self._say(f"node {name} could not be made: {error}")
            return None

    def _start(self, key: Key, place: Place, instance: SandboxInstance) -> bool:
        folder = self._folder / place.name
        groups = _make_groups(self._tag, place.name)
        try:
            boot = self._boot(place, folder, instance, groups)
        except OSError as error:  # a full disk, say
            self._failed.add(key)
            self._places.detach(place)
            self._say(f"node {place.name} could not boot: {error}")
            return False
        self._running[key] = _Running(place, folder, boot, groups)
        self._say(f"node {place.name} of {key[0]} booted at {place.address}")
        return True

    def _boot(
        self, place: Place, folder: Path, instance: SandboxInstance, groups: Sequence[Path]
    ) -> subprocess.Popen[bytes]:
        """Run the user data as cloud-init would: as root of the node, from a file, with /bin/sh."""
        home = folder / "home"
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        script = folder / "user-data"
        with os.fdopen(os.open(script, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(instance.user_data)  # it holds the join token
        argv = self._places.command(place, ["/bin/sh", str(script)])
        if groups:
            argv = ["/bin/sh", "-c", _INTO_GROUPS, "boot", *(str(g / "cgroup.procs") for g in groups), "--", *argv]
        with (folder / "console.log").open("ab") as console:
            return subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                cwd=home,
                env=self._environment(place, home),
                start_new_session=True,
            )

    def _environment(self, place: Place, home: Path) -> dict[str, str]:
        cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        return {
            "PATH": os.environ.get("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
            "LANG": "C.UTF-8",
            "HOME": str(home),
            "XDG_CACHE_HOME": cache,
            "SHARDWRIGHT_PYTHON": sys.executable,
            "SHARDWRIGHT_UNDERLAY_ADDRESS": place.address,
            "SHARDWRIGHT_METADATA_URL": place.metadata_url,
            processes.MARKER: self._tag,
            processes.NODE_MARKER: f"{self._tag}/{place.name}",
        }

    def _stop_node(self, key: Key) -> None:
        running = self._running.pop(key)
        marker = f"{self._tag}/{running.place.name}"

        def on_it() -> set[int]:
            by_marker = set(processes.tagged(lambda value: value == marker, processes.NODE_MARKER))
            everywhere = by_marker | self._places.pids(running.place) | processes.in_cgroups(running.groups)
            return {pid for pid in everywhere if not processes.is_zombie(pid)}

        survivors = processes.end_all(on_it, grace_seconds=0.0)
        running.boot.poll()
        self._places.detach(running.place)
        for group in (*running.groups, *shard_groups(running.place.name)):
            remove_cgroup(group)
        shutil.rmtree(running.folder / "home", ignore_errors=True)
        (running.folder / "user-data").unlink(missing_ok=True)
        self._say(f"node {running.place.name} of {key[0]} is gone" + (f" but for {survivors}" if survivors else ""))

    def _free_name(self, instance: SandboxInstance) -> str:
        base = re.sub(r"[^A-Za-z0-9._-]", "_", instance.node or instance.instance_id)[:60].lstrip(".") or "node"
        taken = {running.place.name for running in self._running.values()}
        name, number = base, 2
        while name in taken:
            name, number = f"{base}-{number}", number + 1
        return name

    def _complain(self, source: str, problem: str) -> None:
        if self._complained.get(source) != problem:
            self._complained[source] = problem
            self._say(f"{source}: {problem}")


def _make_groups(tag: str, name: str) -> tuple[Path, ...]:
    """A cgroup for the node in every hierarchy that lets us; none where we may not (then only markers track it)."""
    roots = [_CGROUPS] if (_CGROUPS / "cgroup.controllers").exists() else [_CGROUPS / each for each in _CONTROLLERS]
    made = []
    for root in roots:
        group = root / cgroup_name(tag) / name
        try:
            if (root / "cgroup.procs").exists():
                group.mkdir(parents=True, exist_ok=True)
                made.append(group)
        except OSError:
            continue
    return tuple(made)
