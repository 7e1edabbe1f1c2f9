"""The sandbox put together: servers, underlay, nodes, metadata, market and control, in one supervising process."""

import os
import secrets
import socket
import threading
import traceback
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from pathlib import Path

from engine.clock import Clock
from engine.errors import ShardwrightError, UsageError
from engine.model.value import Value
from providers.sandbox import aws, netns
from providers.sandbox.certificates import TlsFiles, make_tls_files
from providers.sandbox.contract import Fault, PriceChange
from providers.sandbox.control import (
    Cheaper,
    ControlServer,
    MakeCheaper,
    NewClient,
    NodeStatus,
    Nothing,
    OpenRelay,
    ReclaimNode,
    RelayAddress,
    SandboxStatus,
    ServerStatus,
    SetFault,
    SetPrice,
)
from providers.sandbox.hosts import NodeHost, Source
from providers.sandbox.info import SPECS, ProviderSpec, SandboxInfo, SandboxProvider
from providers.sandbox.market import Market, Seller
from providers.sandbox.metadata import MetadataServer
from providers.sandbox.netns import NetworkSetupFailed
from providers.sandbox.nodes import HostedNode, HostedNodes
from providers.sandbox.places import LOOPBACK_LIMITS, LoopbackNetwork, LoopbackPlaces, NamespacePlaces, Places
from providers.sandbox.relay import Relay
from providers.sandbox.servers import PluginCommand, ServerClient, ServerCommand, ServerProcess
from providers.sandbox.signers import InstanceSigners
from providers.sandbox.underlay import METADATA_ADDRESS, Attachment, Underlay

Say = Callable[[str], None]
_METADATA_PORT = 80


class SandboxOptions(Value):
    """What ``up`` was asked for."""

    state_dir: Path
    seed: int = 0
    meter_speed: Decimal = Decimal(1)
    providers: tuple[str, ...]
    namespaces: bool = True
    """False: not even if they could be had."""
    reclaims: bool = False
    control_ports: tuple[int, ...] = ()

    def specs(self) -> tuple[ProviderSpec, ...]:
        unknown = [name for name in self.providers if name not in SPECS]
        if unknown or not self.providers:
            raise UsageError(
                f"unknown sandbox providers: {', '.join(unknown) or 'none given'}", why=f"there are {', '.join(SPECS)}"
            )
        return tuple(SPECS[name] for name in dict.fromkeys(self.providers))


_CREDENTIALS: Mapping[str, Callable[[ServerClient, str], tuple[tuple[str, str], ...]]] = {
    "aws": lambda *_: (
        ("access_key_id", aws.ACCESS_KEY_ID),
        ("secret_access_key", aws.SECRET_ACCESS_KEY),
    ),
    "gcp": lambda client, _: (("service_account_json", client.service_account_key()),),
    "azure": lambda _, secret: (
        ("tenant_id", "00000000-0000-4000-8000-000000000002"),
        ("client_id", "00000000-0000-4000-8000-000000000003"),
        ("client_secret", secret),
    ),
    "network": lambda _, secret: (("token", secret),),
}
"""Kind of provider -> what its adapter signs in with: (client of the server, the run's secret) -> pairs."""


class Sandbox:
    """Everything but the process's life: ``open`` brings it up, the teardown (by tag) takes it away."""

    def __init__(self, options: SandboxOptions, tag: str, clock: Clock, stop: threading.Event, say: Say) -> None:
        self._options, self._tag, self._clock, self._stop, self._say = options, tag, clock, stop, say
        self._nodes = HostedNodes()
        self._signers = InstanceSigners(options.state_dir / "attestation", clock)
        self._metadata = MetadataServer(self._nodes, clock, self._signers)
        self._secret = secrets.token_urlsafe(24)
        self._servers: dict[str, ServerProcess] = {}
        self._plugins: dict[str, ServerProcess] = {}
        self._clients: dict[str, ServerClient] = {}
        self._underlay: Underlay | None = None
        self._relay: Relay | None = None

    def open(self, started_at: datetime) -> SandboxInfo:
        """Blocks until every server serves and nodes can boot. Raises ShardwrightError."""
        specs = self._options.specs()
        tls = make_tls_files(self._options.state_dir / "tls", self._clock)
        self._start_servers(specs, tls)
        self._underlay = self._make_underlay()
        places = self._make_places(self._underlay)
        providers = tuple(self._provider(spec, tls) for spec in specs)
        self._market = Market(
            {spec.name: Seller(self._clients[spec.name], spec.reclaim_notice_seconds) for spec in specs},
            self._nodes,
            seed=self._options.seed,
            reclaims=self._options.reclaims,
            say=self._say,
        )
        sources = [Source(spec.name, spec.kind, spec.account, self._clients[spec.name]) for spec in specs]
        host = NodeHost(sources, places, self._nodes, tag=self._tag, state_dir=self._options.state_dir, say=self._say)
        self._thread("nodes", lambda: host.run(self._stop))
        self._thread("market", lambda: self._market.run(self._stop))
        token = secrets.token_urlsafe(24)
        control = ControlServer(self, token)
        for port in self._options.control_ports:
            self.open_relay(OpenRelay(port=port))
        underlay = self._underlay
        return SandboxInfo(
            tag=self._tag,
            state_dir=str(self._options.state_dir),
            started_at=started_at,
            supervisor_pid=os.getpid(),
            ready=True,
            namespaces=underlay is not None,
            limits=() if underlay is not None else LOOPBACK_LIMITS,
            seed=self._options.seed,
            meter_speed=self._options.meter_speed,
            providers=providers,
            plugins=self._plugin_ports(),
            ca_file=str(tls.ca),
            control_url=control.url,
            control_token=token,
            relay_host=self._relay_host,
            metadata_url=f"http://{METADATA_ADDRESS}" if underlay is not None else None,
            underlay_subnet=str(underlay.subnet) if underlay is not None else None,
            underlay_root_address=underlay.root_address if underlay is not None else None,
        )

    def end_servers(self) -> None:
        for process in (*self._servers.values(), *self._plugins.values()):
            process.end()

    # -- orders

    def status(self) -> SandboxStatus:
        return SandboxStatus(
            servers=tuple(
                ServerStatus(name=name, pid=server.pid, alive=server.process.poll() is None)
                for name, server in self._servers.items()
            ),
            nodes=tuple(_node_status(hosted) for hosted in self._nodes.all()),
        )

    def reclaim(self, order: ReclaimNode) -> NodeStatus:
        return _node_status(self._market.reclaim(order.node, order.notice_seconds), reclaimed=True)

    def set_price(self, order: SetPrice) -> Nothing:
        self._market.price(order.provider, PriceChange(**order.model_dump(exclude={"provider"})))
        return Nothing()

    def make_cheaper(self, order: MakeCheaper) -> Cheaper:
        changed = self._market.cheaper(
            order.instance_type, order.factor, provider=order.provider, region=order.region, option=order.option
        )
        return Cheaper(changed=tuple(SetPrice(provider=name, **change.model_dump()) for name, change in changed))

    def set_fault(self, order: SetFault) -> Nothing:
        client = self._clients.get(order.provider)
        if client is None:
            raise UsageError(f"no provider {order.provider!r} here", why=f"there are {', '.join(self._clients)}")
        client.set_fault(Fault(mode=order.mode, seconds=order.seconds))
        return Nothing()

    def attach_client(self, order: NewClient) -> Attachment:
        if self._underlay is None:
            raise UsageError("there is no underlay to attach a client to", why=LOOPBACK_LIMITS[0])
        return self._underlay.attach_client(order.name)

    def open_relay(self, order: OpenRelay) -> RelayAddress:
        if self._underlay is not None:
            relay = self._relay or Relay(self._relay_socket)
            self._relay = relay
            try:
                relay.open(order.port)
            except OSError as error:
                raise UsageError(f"port {order.port} cannot be relayed", why=str(error)) from error
        return RelayAddress(host=self._relay_host, port=order.port)

    # -- putting together

    @property
    def _relay_host(self) -> str:
        return "127.0.0.1" if self._underlay is None else self._underlay.gateway

    def _relay_socket(self, port: int) -> socket.socket:
        if self._underlay is None:
            raise UsageError("no relay without namespaces")
        return netns.listen(self._underlay.gateway, port, namespace=self._underlay.namespace)

    def _start_servers(self, specs: tuple[ProviderSpec, ...], tls: TlsFiles) -> None:
        logs = self._options.state_dir / "logs"
        for spec in specs:
            command = ServerCommand(
                spec=spec, seed=self._options.seed, meter_speed=self._options.meter_speed, tls=tls if spec.tls else None
            )
            log = logs / f"{spec.name}.log"
            self._servers[spec.name] = ServerProcess(command, tag=self._tag, secret=self._secret, log=log)
        for plugin in sorted({spec.plugin for spec in specs if spec.plugin}):
            log = logs / f"plugin-{plugin}.log"
            self._plugins[plugin] = ServerProcess(
                PluginCommand(name=plugin, ca_file=tls.ca), tag=self._tag, secret=self._secret, log=log
            )
        self._say(f"starting {len(specs)} provider servers and {len(self._plugins)} plugins")
        for spec in specs:
            port = self._servers[spec.name].wait_ready(self._stop)
            endpoint = f"{'https' if spec.tls else 'http'}://127.0.0.1:{port}"
            self._clients[spec.name] = ServerClient(spec.name, endpoint, ca_file=str(tls.ca) if spec.tls else None)
            self._say(f"{spec.name} serves on {endpoint}")

    def _plugin_ports(self) -> tuple[tuple[str, int], ...]:
        return tuple((name, process.wait_ready(self._stop)) for name, process in self._plugins.items())

    def _make_underlay(self) -> Underlay | None:
        if not self._options.namespaces or os.geteuid() != 0:
            why = "not root" if self._options.namespaces else "asked for"
            self._say(f"without network namespaces ({why}): {'; '.join(LOOPBACK_LIMITS)}")
            return None
        underlay = Underlay(self._tag)
        try:
            underlay.create()
        except NetworkSetupFailed as error:
            self._say(f"without network namespaces ({error}): {'; '.join(LOOPBACK_LIMITS)}")
            return None
        self._say(f"underlay {underlay.subnet} is up")
        return underlay

    def _make_places(self, underlay: Underlay | None) -> Places:
        if underlay is None:
            return LoopbackPlaces(self._metadata, LoopbackNetwork())  # until this process ends
        self._metadata.listen(netns.listen(METADATA_ADDRESS, _METADATA_PORT, namespace=underlay.namespace))
        return NamespacePlaces(underlay)

    def _provider(self, spec: ProviderSpec, tls: TlsFiles) -> SandboxProvider:
        client, keys = self._clients[spec.name], self._signers.keys_of(spec.kind)
        return SandboxProvider(
            name=spec.name,
            kind=spec.kind,
            account=spec.account,
            regions=spec.regions,
            endpoint=client.endpoint,
            ca_file=str(tls.ca) if spec.tls else None,
            metadata_url=f"http://{METADATA_ADDRESS}" if self._underlay is not None else None,
            attestation_keys=None if keys is None else str(keys),
            credentials=_CREDENTIALS[spec.kind](client, self._secret),
            pid=self._servers[spec.name].pid,
        )

    def _thread(self, name: str, work: Callable[[], None]) -> None:
        def run() -> None:
            try:
                work()
            except Exception as error:  # whatever it is, a sandbox with a dead part must not look alive
                detail = str(error) if isinstance(error, ShardwrightError) else traceback.format_exc()
                self._say(f"{name} failed: {detail}")
                self._stop.set()

        threading.Thread(target=run, name=name, daemon=True).start()


def _node_status(hosted: HostedNode, *, reclaimed: bool | None = None) -> NodeStatus:
    return NodeStatus(
        node=hosted.node,
        provider=hosted.provider,
        instance_id=hosted.instance.instance_id,
        instance_type=hosted.instance.instance_type,
        region=hosted.instance.region,
        spot=hosted.instance.spot,
        namespace=hosted.place.namespace,
        address=hosted.place.address,
        reclaimed=hosted.notice is not None if reclaimed is None else reclaimed,
    )
