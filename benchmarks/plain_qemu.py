"""QEMU moved by hand: what a careful person would type at two monitors, with nothing of Shardwright in between.

The guest, its command line, its tap, its certificates and the order of the commands are those of the agent; the
waiting is by QEMU's own events, so it costs nothing. There is no epoch, no store, no reservation, no fence and no
comparison of memory: QEMU 7.2 under TCG can lose a written page on the way (see agent.memory), and this would not
notice.
"""

import asyncio
import json
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from agent import console, guest, network
from agent.boots import USUAL_MTU
from agent.guest import GuestRecord
from agent.image import GuestImage, build_image, cache_root
from agent.move_side import TLS_PRIORITY
from agent.node_guest import Guest
from agent.sending import DOWNTIME_LIMIT_MS
from agent.templates import identity
from agent.wire import ShardStatus
from engine.clock import SystemClock
from engine.model.ids import NodeId, ShardId
from engine.model.value import Value
from providers.sandbox import netns
from tests.small_fleet import SmallFleet

_ANSWER_SECONDS = 30.0
_EVENT_SECONDS = 120.0
_BOOT_SECONDS = 120.0
_JOB, _TARGET, _TLS, _AUTHZ = "m0", "t0", "tls0", "az0"


class PlainMove(Value):
    """Seconds, but for the bytes. ``total``: from the destination's start until the source is dead and deleted."""

    total: float
    mirror_to_running: float
    downtime: float
    """From the source's STOP to the destination's RESUME, by the time that QEMU itself puts on its events."""
    phases: dict[str, float]
    memory_bytes: int


class Qmp:
    """One monitor. Answers and events come on one stream; events are kept until they are waited for."""

    def __init__(self, path: Path) -> None:
        self._link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._link.settimeout(_EVENT_SECONDS)
        self._link.connect(str(path))
        self._stream = self._link.makefile("rb")
        self._stream.readline()
        self.events: list[dict[str, Any]] = []
        self.execute("qmp_capabilities")

    def execute(self, command: str, arguments: dict[str, Any] | None = None) -> Any:
        line = {"execute": command} | ({"arguments": arguments} if arguments else {})
        self._link.sendall(json.dumps(line).encode() + b"\n")
        while "return" not in (said := self._read()):
            if "error" in said:
                raise RuntimeError(f"{command}: {said['error']['desc']}")
            self.events.append(said)
        return said["return"]

    def wait(self, name: str, wanted: Callable[[dict[str, Any]], bool] = lambda _data: True) -> float:
        """When QEMU says that the event happened, seconds since the epoch; those before it are forgotten."""
        while True:
            event = self.events.pop(0) if self.events else self._read()
            if event.get("event") == name and wanted(event.get("data", {})):
                at = event["timestamp"]
                return float(at["seconds"] + at["microseconds"] / 1e6)
            if event.get("data", {}).get("status") == "failed" or event.get("event") == "BLOCK_JOB_ERROR":
                raise RuntimeError(f"the move failed: {event}")

    def close(self) -> None:
        self._link.close()

    def _read(self) -> dict[str, Any]:
        line = self._stream.readline()
        if not line:
            raise RuntimeError("QEMU has gone")
        said: dict[str, Any] = json.loads(line)
        return said


class PlainGuest:
    """One QEMU process in a node's namespace, started without an agent."""

    def __init__(self, fleet: SmallFleet, node: str, record: GuestRecord) -> None:
        self._fleet, self.node = fleet, node
        self.record = record.model_copy(update={"tap": network.tap_name(NodeId(node), record.shard)})
        self.folder = fleet.folder / "plain" / node / record.shard
        self.namespace = fleet.attachments[node].namespace
        self.address = fleet.attachments[node].underlay_address
        self._user = guest.user_for(fleet.folder, record.profile.accelerator)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, image: GuestImage) -> Qmp:
        """Its disk is made where there is none; the monitor answers on return."""
        self.folder.mkdir(parents=True)
        guest.create_disk(self.folder / "disk.raw", self.record.disk_mib)
        guest.lend(self.folder, image, self._user)
        netns.inside(self.namespace, self._launch)
        socket_path = self.folder / guest.RUN_FOLDER / "qmp.sock"
        end = time.monotonic() + _ANSWER_SECONDS
        while time.monotonic() < end:
            try:
                return Qmp(socket_path)
            except OSError:
                time.sleep(0.002)
        raise RuntimeError(f"QEMU does not answer: {(self.folder / 'qemu.log').read_text()[-500:]}")

    def _launch(self) -> None:
        tap = self.record.tap
        assert tap is not None
        network.add_tap(tap, USUAL_MTU)
        direct = guest.supports_direct_io(self.folder / "disk.raw")
        with network.opened_tap(tap) as handle:
            line = guest.command_line(self.record, direct_io=direct, mtu=USUAL_MTU, tap=handle)
            self._process = guest.start(line, self.folder, user=self._user, keep=[handle])

    def wait_ready(self) -> None:
        run, end = self.folder / guest.RUN_FOLDER, time.monotonic() + _BOOT_SECONDS
        for reached in (guest.waits, guest.is_ready):
            while not reached(run):
                if time.monotonic() > end:
                    raise RuntimeError("the guest does not boot")
                time.sleep(0.05)
            if reached is guest.waits:
                who = identity(Guest(self.folder, self.record), USUAL_MTU, SystemClock())
                asyncio.run(console.ask(run, who, "identity", _BOOT_SECONDS))

    def tls(self, endpoint: str) -> dict[str, Any]:
        folder = guest.lend_tls(self._fleet.agent_folder(self.node) / "tls", self.folder, self._user)
        return {
            "qom-type": "tls-creds-x509", "id": _TLS, "dir": folder, "endpoint": endpoint, "verify-peer": True,
            "priority": TLS_PRIORITY,
        }  # fmt: skip

    def remove(self) -> None:
        """Kill it, and delete what it had."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(10)
        tap = self.record.tap
        assert tap is not None
        netns.inside(self.namespace, lambda: network.remove_tap(tap))
        shutil.rmtree(self.folder, ignore_errors=True)


class PlainShard:
    """A guest that is moved to and fro by hand."""

    def __init__(self, fleet: SmallFleet, name: str, like: ShardStatus, address: str, mac: str, node: str) -> None:
        """``like``: a carved shard whose image, machine and size this one has."""
        self._fleet = fleet
        self._image = build_image(lambda _text: None, cache_root())
        self._record = GuestRecord(
            shard=ShardId(name), resources=like.resources, image=like.image, address=address, mac=mac,
            disk_mib=like.disk_mib, profile=like.profile, network=like.network,
        )  # fmt: skip
        self.here = PlainGuest(fleet, node, self._record)
        self._monitor = self.here.start(self._image)
        self.here.wait_ready()

    @property
    def disk(self) -> Path:
        return self.here.folder / "disk.raw"

    def move(self, node: str) -> PlainMove:
        marks: list[tuple[str, float]] = []

        def mark(name: str) -> None:
            marks.append((name, time.perf_counter()))

        mark("begin")
        source, there = self._monitor, PlainGuest(self._fleet, node, self._waiting())
        destination = there.start(self._image)
        _listen(there, destination, self.here.node)
        mark("prepared")
        _start_mirror(self.here, source, there)
        source.wait("BLOCK_JOB_READY")
        mark("mirrored")
        _start_copy(source, there)
        stopped = source.wait("STOP")
        source.wait("MIGRATION", lambda data: data["status"] == "pre-switchover")
        mark("paused")
        source.execute("block-job-cancel", {"device": _JOB})
        source.wait("BLOCK_JOB_COMPLETED")
        source.execute("migrate-continue", {"state": "pre-switchover"})
        source.wait("MIGRATION", lambda data: data["status"] == "completed")
        destination.wait("MIGRATION", lambda data: data["status"] == "completed")
        destination.execute("nbd-server-stop")
        destination.execute("cont")
        mark("running")
        resumed = destination.wait("RESUME")
        said = source.execute("query-migrate")
        source.close()
        self.here.remove()
        destination.execute("object-del", {"id": _TLS})
        destination.execute("object-del", {"id": _AUTHZ})
        mark("cleaned")
        self.here, self._monitor = there, destination
        times = dict(marks)
        return PlainMove(
            total=times["cleaned"] - times["begin"],
            mirror_to_running=times["running"] - times["prepared"],
            downtime=resumed - stopped,
            phases={name: at - before for (_, before), (name, at) in pairwise(marks)},
            memory_bytes=said["ram"]["transferred"],
        )

    def close(self) -> None:
        self._monitor.close()
        self.here.remove()

    def _waiting(self) -> GuestRecord:
        return self._record.model_copy(
            update={
                "incoming": True,
                "memory_port": network.free_port(self._fleet.underlay.root_address),
                "disk_port": network.free_port(self._fleet.underlay.root_address),
            }
        )


def _listen(there: PlainGuest, monitor: Qmp, source: str) -> None:
    monitor.execute("object-add", there.tls("server"))
    monitor.execute("object-add", {"qom-type": "authz-simple", "id": _AUTHZ, "identity": f"CN={source}"})
    address = {"type": "inet", "data": {"host": there.address, "port": str(there.record.disk_port)}}
    monitor.execute("nbd-server-start", {"addr": address, "tls-creds": _TLS, "tls-authz": _AUTHZ})
    export = {"type": "nbd", "id": "e0", "node-name": "d0", "name": "disk", "writable": True}
    monitor.execute("block-export-add", export)
    monitor.execute("migrate-set-parameters", {"tls-creds": _TLS, "tls-authz": _AUTHZ})
    _capabilities(monitor, "late-block-activate", "events")
    monitor.execute("migrate-incoming", {"uri": f"tcp:{there.address}:{there.record.memory_port}"})


def _start_mirror(here: PlainGuest, monitor: Qmp, there: PlainGuest) -> None:
    monitor.execute("object-add", here.tls("client"))
    server = {"type": "inet", "host": there.address, "port": str(there.record.disk_port)}
    target = {"driver": "nbd", "node-name": _TARGET, "server": server, "export": "disk"}
    monitor.execute("blockdev-add", target | {"tls-creds": _TLS, "tls-hostname": there.node})
    job = {"job-id": _JOB, "device": "d0", "target": _TARGET, "sync": "full", "copy-mode": "write-blocking"}
    monitor.execute("blockdev-mirror", job)


def _start_copy(monitor: Qmp, there: PlainGuest) -> None:
    parameters = {"tls-creds": _TLS, "tls-hostname": there.node, "max-bandwidth": 0}
    monitor.execute("migrate-set-parameters", parameters | {"downtime-limit": DOWNTIME_LIMIT_MS})
    _capabilities(monitor, "pause-before-switchover", "events")
    monitor.execute("migrate", {"uri": f"tcp:{there.address}:{there.record.memory_port}"})


def _capabilities(monitor: Qmp, *names: str) -> None:
    listed = [{"capability": name, "state": True} for name in names]
    monitor.execute("migrate-set-capabilities", {"capabilities": listed})
