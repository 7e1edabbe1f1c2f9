"""Real nodes for tests: namespaces on an underlay, agents booted from user data, a bare control plane."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import TracebackType
from uuid import uuid4

from pydantic import SecretStr

from agent.limits import group_name
from agent.record_client import RecordSummary
from agent.wire import CarveRequest, NoticeReport, ShardStatus
from engine.clock import SystemClock
from engine.composition.binding import Rules
from engine.composition.health_desk import HealthDesk
from engine.composition.storage import Storage
from engine.fleet.admission import Admission
from engine.fleet.agent_client import AgentClients
from engine.fleet.certificates import CertificateAuthority, ControlCredentials
from engine.fleet.gateways import render_gateway
from engine.fleet.join import ControlListener, NodeJoined, join_secret
from engine.fleet.overlay import OverlayDesk
from engine.fleet.user_data import UserDataSettings, render_user_data
from engine.migration.keeping import keep
from engine.model.capacity import Resources
from engine.model.ids import CellId, NodeId, PoolId, ShardId
from engine.model.market import PurchaseOption
from engine.model.money import usd
from engine.model.placement import ComponentName, Node, NodeState, Shard
from engine.model.workload_image import WorkloadImage
from engine.store.admitted import AdmittedKeys
from engine.store.attachments import Attachments
from engine.store.attested_instances import AttestedInstances
from engine.store.database import Database, metadata
from engine.store.join_tokens import JoinTokens
from engine.store.overlay_map import OverlayMap
from engine.store.run_leases import RunLeases
from engine.store.shard_health import HealthBook
from engine.store.shard_map import ShardMap
from providers.sandbox import netns
from providers.sandbox.gateway import GatewayProcess
from providers.sandbox.teardown import remove_cgroup, remove_dead_sockets
from providers.sandbox.underlay import Attachment, Underlay

JOIN_SECONDS = 30.0
SHARD = Resources(vcpus=1, memory_gib=0.125, storage_iops=0, network_mbps=0)
NODE = Resources(vcpus=4, memory_gib=4, storage_iops=0, network_mbps=0)
DISK_MIB = 64
NAMESPACE = "test"
"""Of the overlay that shards and the client are on."""


class SmallFleet:
    """Two nodes (``nA``, ``nB``), a client namespace, and what the control plane keeps in ``folder``."""

    def __init__(
        self,
        folder: Path,
        nodes: tuple[str, ...] = ("nA", "nB"),
        lease_seconds: float | None = None,
        rules: Rules | None = None,
        first_on_path: Path | None = None,
    ) -> None:
        """``first_on_path``: a folder in which nodes look for programs first."""
        self.folder, self.names, self.lease_seconds = folder, nodes, lease_seconds
        self._path = os.pathsep.join([*([str(first_on_path)] if first_on_path else []), os.environ["PATH"]])
        self.clock = SystemClock()
        self.underlay = Underlay(f"swt{uuid4().hex[:6]}")
        self.agents: dict[NodeId, subprocess.Popen[bytes]] = {}
        self.attachments: dict[str, Attachment] = {}
        self.notices: list[tuple[NodeId, NoticeReport]] = []
        self.joined: list[NodeJoined] = []
        self.carved: list[str] = []
        self.rules: Rules = rules or {}
        self.database = Database(f"sqlite:///{folder / 'control.sqlite'}")

    def __enter__(self) -> "SmallFleet":
        try:
            self._build()
        except BaseException:
            self._tear_down()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tear_down()

    def _build(self) -> None:
        metadata.create_all(self.database.engine)
        self.shard_map = ShardMap(self.database, self.clock)
        self.health, self.disks = HealthBook(self.database, self.clock), Attachments(self.database)
        self.underlay.create()
        fleet_folder = self.folder / "fleet"
        self.authority = CertificateAuthority.load_or_create(fleet_folder, self.clock)
        self.credentials = ControlCredentials(self.authority, fleet_folder, self.clock)
        self.tokens = JoinTokens(self.database, self.clock, join_secret(fleet_folder))
        admission = Admission(
            tokens=self.tokens, instances=AttestedInstances(self.database, self.clock), secret=b"",
            clock=self.clock, attestation_of=lambda _node: None,
        )  # fmt: skip
        self.overlay = OverlayMap(self.database)
        desk = OverlayDesk(self.overlay)
        self.shard_map.on_overlay_change(desk.changed)
        self.listener = ControlListener(
            self.underlay.root_address, 0,
            authority=self.authority, credentials=self.credentials, admission=admission,
            admitted=AdmittedKeys(self.database),
            on_join=self._on_join, on_notice=lambda node, notice: self.notices.append((node, notice)),
            on_keep=partial(keep, self.shard_map),
            on_health=HealthDesk(self.shard_map, self.health, self.rules, lambda _event: None),
            leases=RunLeases(self.database, self.clock, timedelta(seconds=self.lease_seconds or 0)),
            overlay=desk,
        )  # fmt: skip
        self.control_url = self.listener.start()
        self.clients = AgentClients(self.shard_map.node, self.credentials, self.clock, random.Random(1))
        self.storage = Storage(self.shard_map, self.disks, self.clients, self.rules)
        for name in self.names:
            self.attachments[name] = self.underlay.attach_node(name)
            self.start_agent(NodeId(name))
        self.client = self.underlay.attach_client("client")
        for name in self.names:
            self._wait_up(name)
            wait_for(lambda name=name: self._answers(NodeId(name)), JOIN_SECONDS, self._consoles)
        self.gateway = self.start_gateway("client", NAMESPACE, self.client)

    def start_gateway(self, name: str, namespace: str, attachment: Attachment) -> GatewayProcess:
        """A client's host on the overlay of ``namespace``."""
        host = self.overlay.add_gateway(NodeId(name), namespace)
        text = render_gateway(
            host.name, SecretStr(self.tokens.replace(host.name)), control_url=self.control_url,
            control_ca_pem=self.authority.ca_pem, underlay_mtu=1500,
        )  # fmt: skip
        return GatewayProcess(attachment.namespace, text, self.folder / f"gateway-{name}")

    # -- nodes

    def start_agent(self, node: NodeId) -> None:
        """Boot the node as cloud-init would; again after the agent has ended."""
        home = self.folder / node
        home.mkdir(exist_ok=True)
        record = Node(
            id=node, cell=CellId(f"test/1/{node}"), zone="z", instance_type="t", option=PurchaseOption.SPOT,
            hourly_price=usd("0.1"), resources=NODE, state=NodeState.EXPECTED,
        )  # fmt: skip
        if node not in self.agents:
            self.shard_map.put_node(record)
        settings = UserDataSettings(
            control_url=self.control_url,
            control_ca_pem=self.authority.ca_pem,
            provider_kind="network",
            run_lease_seconds=self.lease_seconds,
        )
        script = home / "user-data"
        script.write_text(render_user_data(record, SecretStr(self.tokens.issue(node)), settings))
        environment = {
            "PATH": self._path, "HOME": str(home), "SHARDWRIGHT_PYTHON": sys.executable,
            "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache"),
            "SHARDWRIGHT_UNDERLAY_ADDRESS": self.attachments[node].underlay_address,
        }  # fmt: skip
        with (home / "console.log").open("ab") as console:
            namespace = netns.NAMESPACES / self.attachments[node].namespace
            self.agents[node] = subprocess.Popen(
                ["nsenter", f"--net={namespace}", "--", "/bin/sh", str(script)],
                env=environment, cwd=home, stdin=subprocess.DEVNULL, stdout=console, stderr=console,
                start_new_session=True,
            )  # fmt: skip

    def add_node(self, name: str) -> None:
        """One more, up and joined on return."""
        self.names += (name,)
        self.attachments[name] = self.underlay.attach_node(name)
        self.start_agent(NodeId(name))
        self._wait_up(name)

    def remove_node(self, name: str) -> None:
        """Its agent and everything in its namespace are killed, and the namespace with them."""
        self.names = tuple(kept for kept in self.names if kept != name)
        agent = self.agents.pop(NodeId(name))
        agent.kill()
        agent.wait()
        self._clear(self.attachments.pop(name))

    def stop_agent(self, node: NodeId, how: signal.Signals = signal.SIGTERM) -> None:
        self.agents[node].send_signal(how)
        self.agents[node].wait(10)

    def agent_folder(self, node: str) -> Path:
        return self.folder / node / "shardwright-agent"

    def disk(self, node: str, shard: str) -> Path:
        return self.agent_folder(node) / "shards" / shard / "disk.raw"

    # -- shards and clients

    def carve(
        self,
        name: str,
        node: str,
        resources: Resources = SHARD,
        disk_mib: int = DISK_MIB,
        image: WorkloadImage | None = None,
    ) -> tuple[Shard, ShardStatus]:
        self.carved.append(name)
        shard = self.shard_map.add_shard(
            ShardId(name), shard_type="cpu.small", pool=PoolId("p"), node=NodeId(node), nominal=resources
        )
        request = CarveRequest(
            shard=shard.id, epoch=shard.epoch, resources=resources, address=f"{shard.address}/16", mac=shard.mac,
            disk_mib=disk_mib, image=image,
        )  # fmt: skip
        status = self.clients(NodeId(node)).carve(request)
        self.shard_map.bind(ComponentName(namespace=NAMESPACE, workload="w", component=name), shard.id)
        return shard, status

    def start_client(
        self, shard: Shard, *, seconds: float = 120, first: int = 1, every: float = 0.005, answer_seconds: float = 60
    ) -> "RunningClient":
        return RunningClient(
            self.client.namespace, shard.address, self.folder / f"records-{shard.id}-{first}.jsonl",
            seconds=seconds, first=first, every=every, answer_seconds=answer_seconds,
        )  # fmt: skip

    # -- inside

    def _wait_up(self, name: str) -> None:
        wait_for(lambda: any(one.node == name for one in self.joined), JOIN_SECONDS, self._consoles)
        wait_for(lambda: self._answers(NodeId(name)), JOIN_SECONDS, self._consoles)

    def _clear(self, attachment: Attachment) -> None:
        for pid in _pids_in(attachment.namespace):
            with suppress(ProcessLookupError):  # it has ended by itself
                os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not _pids_in(attachment.namespace), 10, lambda: "processes stay")
        self.underlay.detach(attachment.name)

    def _on_join(self, joined: NodeJoined) -> None:
        if self.overlay.is_gateway(joined.node):
            return
        self.shard_map.update_node(
            joined.node, state=NodeState.JOINED, agent_url=joined.agent_url, underlay_address=joined.underlay_address
        )
        self.joined.append(joined)

    def _answers(self, node: NodeId) -> bool:
        try:
            return self.clients(node).status().node == node
        except Exception:
            return False

    def _consoles(self) -> str:
        return "\n".join((self.folder / name / "console.log").read_text()[-2000:] for name in self.names)

    def _tear_down(self) -> None:
        for process in self.agents.values():
            process.kill()
            process.wait()
        if hasattr(self, "gateway"):
            self.gateway.close()
        for attachment in self.underlay.attached():
            self._clear(attachment)
        netns.batch("ip", [f"link del {self.underlay.tag}u", f"netns del {self.underlay.namespace}"], force=True)
        remove_dead_sockets()
        if hasattr(self, "listener"):
            self.listener.stop()
        if hasattr(self, "clients"):
            self.clients.close()
        self.database.dispose()
        for node in self.names:
            for shard in self.carved:
                group = group_name(self.agent_folder(node), NodeId(node), ShardId(shard))
                for root in ("cpu", "memory", ""):
                    remove_cgroup(Path("/sys/fs/cgroup") / root / "shardwright" / group)


class RunningClient:
    """The record client as a process in the client's namespace."""

    def __init__(
        self,
        namespace: str,
        address: str,
        log: Path,
        *,
        seconds: float,
        first: int,
        every: float,
        answer_seconds: float,
    ) -> None:
        self.log = log
        command = [sys.executable, "-m", "agent.record_client", "--host", address, "--log", str(log)]
        command += ["--seconds", str(seconds), "--first", str(first), "--every", str(every)]
        command += ["--answer-seconds", str(answer_seconds)]
        self._process = subprocess.Popen(
            ["nsenter", f"--net={netns.NAMESPACES / namespace}", "--", *command],
            stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def wait_for_records(self, count: int) -> None:
        wait_for(lambda: self.acked() >= count, 30, lambda: f"only {self.acked()} records of {count}")

    def acked(self) -> int:
        return self.log.read_bytes().count(b"\n") if self.log.exists() else 0

    def kill(self) -> None:
        """For one whose guest has died: it would wait for its answer. The log stays."""
        self._process.kill()
        self._process.communicate()

    def finish(self) -> RecordSummary:
        self._process.send_signal(signal.SIGTERM)
        out, _ = self._process.communicate(timeout=90)
        return RecordSummary.model_validate_json(out)


def wait_for(check: Callable[[], bool], seconds: float, story: Callable[[], str]) -> None:
    end = time.monotonic() + seconds
    while not check():
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds:g} s: {story()}")
        time.sleep(0.05)


def _pids_in(namespace: str) -> list[int]:
    if not (netns.NAMESPACES / namespace).exists():
        return []
    return [int(line) for line in netns.query("netns", "pids", namespace).split()]
