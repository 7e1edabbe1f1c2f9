"""Real TLS on loopback: who may join, renew and report, and who may not."""

import asyncio
import random
import socket
import ssl
from collections.abc import Coroutine, Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import httpx
import pytest
import structlog
from pydantic import SecretStr

from agent.config import AgentConfig, MetadataFlavour
from agent.identity import Identity
from agent.metadata import MetadataAddress
from agent.overlay_wire import OverlayRequest
from agent.peer import client_context
from agent.reclaim import watch
from agent.wire import (
    CONTROL_NAME,
    HeldShard,
    KeepRequest,
    NoticeReport,
    RenewRequest,
    Verdict,
)
from engine.clock import Clock, ManualClock, SystemClock
from engine.control_plane import ControlPlane, NoticeDesk
from engine.errors import AuthenticationFailed, ConfigurationError, ProviderUnavailable
from engine.fleet.admission import Admission, Attestation
from engine.fleet.certificates import LEAF_LIFE, CertificateAuthority, ControlCredentials
from engine.fleet.join import ControlListener, NodeJoined, OnNotice, join_secret
from engine.fleet.overlay import OverlayDesk
from engine.model.capacity import Resources
from engine.model.ids import CellId, MoveId, NodeId, ShardId
from engine.model.market import PurchaseOption
from engine.model.money import usd
from engine.model.placement import Node, NodeState
from engine.store.admitted import AdmittedKeys
from engine.store.attested_instances import AttestedInstances
from engine.store.database import Database
from engine.store.join_tokens import JoinTokens
from engine.store.overlay_map import OverlayMap
from engine.store.run_leases import RunLeases
from engine.store.shard_map import ShardMap
from providers.base import InstanceRecord, ProviderSettings
from providers.registry import open_attestor
from providers.sandbox.signers import InstanceSigners

CLOCK = SystemClock()


def expected(node: str) -> Node:
    return Node(
        id=NodeId(node), cell=CellId("p/1/r"), zone="z", instance_type="t", option=PurchaseOption.SPOT,
        hourly_price=usd("1"), resources=Resources(vcpus=2, memory_gib=4), state=NodeState.EXPECTED,
    )  # fmt: skip


class Control:
    """A join listener and what it heard."""

    def __init__(
        self, folder: Path, database: Database, clock: Clock = CLOCK, on_notice: OnNotice | None = None
    ) -> None:
        """``clock``: by which certificates are issued and renewed; they are verified by the machine's own."""
        self.authority = CertificateAuthority.load_or_create(folder / "fleet", clock)
        self.tokens = JoinTokens(database, CLOCK, join_secret(folder / "fleet"))
        self.admission = Admission(
            tokens=self.tokens, instances=AttestedInstances(database, CLOCK), secret=b"secret", clock=CLOCK,
            attestation_of=lambda node: self.vouching if node.startswith("cloud-") else None,
        )  # fmt: skip
        self.leases = RunLeases(database, CLOCK, timedelta(seconds=10))
        self.vouching: Attestation | None = None
        self.joined: list[NodeJoined] = []
        self.notices: list[tuple[NodeId, NoticeReport]] = []
        self.asked: list[tuple[NodeId, ShardId, KeepRequest]] = []
        self.database, self.map, self.overlay = database, ShardMap(database, CLOCK), OverlayMap(database)
        self.credentials = ControlCredentials(self.authority, folder / "fleet", clock)
        self.listener = ControlListener(
            "127.0.0.1", 0,
            authority=self.authority,
            credentials=self.credentials,
            admission=self.admission,
            admitted=AdmittedKeys(database),
            on_join=self.joined.append,
            on_notice=on_notice or (lambda node, notice: self.notices.append((node, notice))),
            on_keep=self.keep,
            leases=self.leases,
            overlay=OverlayDesk(self.overlay, wait_seconds=0.2),
            renew_check_seconds=0.02,
        )  # fmt: skip
        self.url = self.listener.start()

    def keep(self, node: NodeId, shard: ShardId, asked: KeepRequest) -> Verdict:
        self.asked.append((node, shard, asked))
        return Verdict(yours=True, epoch=asked.epoch + 1)

    def identity(
        self,
        folder: Path,
        node: str,
        *,
        token: str | None = None,
        ca: str | None = None,
        metadata: MetadataAddress | None = None,
    ) -> Identity:
        if not self.overlay.is_gateway(NodeId(node)) and node not in {known.id for known in self.map.nodes()}:
            self.map.put_node(expected(node))
        config = AgentConfig(
            control_url=self.url,
            node=NodeId(node),
            join_token=None if metadata else SecretStr(token or self.tokens.issue(NodeId(node))),
            control_ca_pem=ca or self.authority.ca_pem,
            capacity=Resources(vcpus=2, memory_gib=4),
            work_dir=str(folder),
            underlay_address="127.0.0.1",
        )
        return Identity(config, CLOCK, random.Random(1), metadata)

    def client(self, identity: Identity | None) -> httpx.Client:
        ca = self.credentials.ca_file
        context = (
            client_context(ca=ca)
            if identity is None
            else client_context(ca=ca, certificate=identity.certificate_file, key=identity.key_file)
        )
        return httpx.Client(verify=context, base_url=self.url, trust_env=False)


@pytest.fixture
def control(tmp_path: Path, database: Database) -> Iterator[Control]:
    running = Control(tmp_path, database)
    yield running
    running.listener.stop()


def join(identity: Identity) -> None:
    asyncio.run(asyncio.wait_for(identity.join("https://127.0.0.1:7443"), 10))


def notice() -> NoticeReport:
    return NoticeReport(seen_at=CLOCK.now(), at=CLOCK.now(), reason="test")


def test_a_node_joins_and_is_announced(control: Control, tmp_path: Path) -> None:
    node = control.identity(tmp_path / "n1", "n1")
    join(node)
    assert node.usable()
    assert [(one.node, one.agent_url) for one in control.joined] == [("n1", "https://127.0.0.1:7443")]
    assert node.key_file.stat().st_mode & 0o777 == 0o600
    assert (node.folder / "server-key.pem").stat().st_mode & 0o777 == 0o600


def test_nobody_joins_under_the_control_planes_name(control: Control, tmp_path: Path) -> None:
    node = control.identity(tmp_path / "n1", CONTROL_NAME.title())
    with pytest.raises(AuthenticationFailed, match="the control plane's name"):
        join(node)
    assert control.joined == []


def test_a_token_works_for_one_machine_only(control: Control, tmp_path: Path) -> None:
    token = control.tokens.issue(NodeId("n1"))
    join(control.identity(tmp_path / "first", "n1", token=token))
    with pytest.raises(AuthenticationFailed, match="wrong, used or too old"):
        join(control.identity(tmp_path / "second", "n1", token=token))
    assert len(control.joined) == 1


def vouch(control: Control, keys: InstanceSigners) -> MetadataAddress:
    """What instance i-1 of node cloud-1 reads at its metadata address; the control plane trusts ``keys``."""
    file = keys.keys_of("aws")
    assert file is not None
    configured = ProviderSettings(name="aws", kind="aws", account="1", regions=("r",), attestation_keys=str(file))
    attestor = open_attestor(configured, clock=CLOCK)
    assert attestor is not None
    control.vouching = Attestation(provider="aws", account="1", attestor=attestor, inventory=OneInstance())
    document = keys.aws_document('{"accountId": "1", "instanceId": "i-1", "region": "r"}')
    return MetadataAddress(
        "http://m", MetadataFlavour.AWS, httpx.MockTransport(lambda _request: httpx.Response(200, text=document))
    )


class OneInstance:
    """The provider's inventory."""

    def instances(self) -> list[InstanceRecord]:
        return [
            InstanceRecord(
                instance_id="i-1", node=NodeId("cloud-1"), token="", region="r", zone="r-a", instance_type="t",
                running=True, launched_at=CLOCK.now(),
            )
        ]  # fmt: skip

    def terminate(self, instance_id: str) -> None:
        raise AssertionError("nobody is ended here")


def test_a_node_without_a_token_joins_on_its_providers_word_once(control: Control, tmp_path: Path) -> None:
    metadata = vouch(control, InstanceSigners(tmp_path / "keys", CLOCK))
    join(control.identity(tmp_path / "n1", "cloud-1", metadata=metadata))
    with structlog.testing.capture_logs() as logs, pytest.raises(AuthenticationFailed, match="joined already"):
        join(control.identity(tmp_path / "thief", "cloud-1", metadata=metadata))
    assert [one.node for one in control.joined] == ["cloud-1"]
    (refusal,) = [line for line in logs if line["event"] == "refused"]
    assert (refusal["path"], "i-1" in refusal["error"]) == ("/v1/join", True)


def test_a_node_with_neither_a_token_nor_a_metadata_address_says_so(control: Control, tmp_path: Path) -> None:
    node = control.identity(tmp_path / "n1", "cloud-1")
    node._config = node._config.model_copy(update={"join_token": None})
    with pytest.raises(ConfigurationError, match="neither"):
        join(node)


def test_a_wrong_token_is_refused(control: Control, tmp_path: Path) -> None:
    control.tokens.issue(NodeId("n1"))
    with pytest.raises(AuthenticationFailed):
        join(control.identity(tmp_path / "n1", "n1", token="guess"))
    assert control.joined == []


def test_a_node_does_not_give_its_token_to_another_control_plane(control: Control, tmp_path: Path) -> None:
    stranger = CertificateAuthority.load_or_create(tmp_path / "stranger", CLOCK)
    node = control.identity(tmp_path / "n1", "n1", ca=stranger.ca_pem)
    with pytest.raises(TimeoutError):  # it goes on trying: nobody it trusts answers
        asyncio.run(asyncio.wait_for(node.join("https://127.0.0.1:7443"), 1.0))
    assert control.joined == []


def test_a_certificate_is_renewed_for_the_node_that_it_names(control: Control, tmp_path: Path) -> None:
    node = control.identity(tmp_path / "n1", "n1")
    join(node)
    first = node.certificate_file.read_text()
    asyncio.run(node.renew())
    assert node.certificate_file.read_text() != first
    assert "n1" in str(node.folder)


def test_a_notice_reaches_the_control_plane(control: Control, tmp_path: Path) -> None:
    node = control.identity(tmp_path / "n1", "n1")
    join(node)
    asyncio.run(node.report_notice(notice()))
    assert [(who, what.reason) for who, what in control.notices] == [("n1", "test")]


def test_an_agent_reports_until_a_control_plane_that_starts_has_its_notice(database: Database, tmp_path: Path) -> None:
    desk, heard, problems = NoticeDesk(), list[NodeId](), list[str]()
    starting = Control(tmp_path, database, on_notice=desk)
    plane = cast(ControlPlane, SimpleNamespace(on_notice=lambda node, _report: heard.append(node)))
    node = starting.identity(tmp_path / "n1", "n1")

    async def seen() -> NoticeReport:
        return notice()

    async def report(found: NoticeReport) -> None:
        try:
            await node.report_notice(found)
        except ProviderUnavailable as problem:
            problems.append(problem.why)
            raise

    async def pause(_seconds: float) -> None:
        if len(problems) == 2:
            desk.open(plane)

    join(node)
    try:
        asyncio.run(asyncio.wait_for(watch(seen, report, every_seconds=5.0, sleep=pause), 10))
    finally:
        starting.listener.stop()
    assert problems == ["the control plane is starting"] * 2
    assert heard == ["n1"]


def test_a_node_asks_for_a_shard_that_a_move_has_left(control: Control, tmp_path: Path) -> None:
    identity = control.identity(tmp_path / "n1", "n1")
    join(identity)
    asked = KeepRequest(move=MoveId("m1"), epoch=4)
    assert asyncio.run(identity.keep(ShardId("s1"), asked)) == Verdict(yours=True, epoch=5)
    assert control.asked == [("n1", "s1", asked)]


def test_a_shard_that_is_not_the_nodes_gets_no_run_lease_and_that_is_logged(control: Control, tmp_path: Path) -> None:
    """The store says who owns what (see test_run_leases); here it knows no shard, so nothing is granted."""
    node = control.identity(tmp_path / "n1", "n1")
    join(node)
    with structlog.testing.capture_logs() as logs:
        granted = asyncio.run(node.renew_leases((HeldShard(shard=ShardId("s1"), epoch=1),)))
    assert granted.shards == ()
    assert ("run lease refused", ["s1"]) in [(line["event"], line.get("shards")) for line in logs]


@pytest.mark.parametrize("what", ["notices", "leases"])
def test_a_node_speaks_for_itself_only(control: Control, tmp_path: Path, what: str) -> None:
    node = control.identity(tmp_path / "n1", "n1")
    join(node)
    with control.client(node) as client:
        answer = client.post(
            f"/v1/nodes/n2/{what}", content=notice().model_dump_json(), extensions={"sni_hostname": CONTROL_NAME}
        )
        keep = client.post(
            "/v1/nodes/n2/shards/s1/keep",
            content=KeepRequest(move=MoveId("m1"), epoch=1).model_dump_json(),
            extensions={"sni_hostname": CONTROL_NAME},
        )
    assert (answer.status_code, keep.status_code) == (403, 403)
    assert control.notices == []
    assert control.asked == []


@pytest.mark.parametrize("path", ["/v1/nodes/n1/notices", "/v1/nodes/n1/shards/s1/keep", "/v1/renew"])
def test_without_a_certificate_only_joining_is_possible(control: Control, path: str) -> None:
    with control.client(None) as client:
        answer = client.post(path, content="{}", extensions={"sni_hostname": CONTROL_NAME})
    assert answer.status_code == 403


def test_a_certificate_of_another_authority_is_refused_in_the_handshake(control: Control, tmp_path: Path) -> None:
    node = control.identity(tmp_path / "n1", "n1")
    node._csr()
    stranger = CertificateAuthority.load_or_create(tmp_path / "stranger", CLOCK)
    node.certificate_file.write_text(stranger.sign_node(NodeId("n1"), node._csr()).certificate_pem)
    with control.client(node) as client, pytest.raises(httpx.TransportError):
        client.post("/v1/renew", content="{}", extensions={"sni_hostname": CONTROL_NAME})


def test_an_expired_certificate_is_refused_in_the_handshake(control: Control, tmp_path: Path) -> None:
    node = control.identity(tmp_path / "n1", "n1")
    join(node)
    long_ago = ManualClock(CLOCK.now() - 2 * LEAF_LIFE)
    earlier = CertificateAuthority.load_or_create(tmp_path / "fleet", long_ago)
    node.certificate_file.write_text(earlier.sign_node(NodeId("n1"), node._csr()).certificate_pem)
    with control.client(node) as client, pytest.raises(httpx.TransportError):
        client.post("/v1/renew", content="{}", extensions={"sni_hostname": CONTROL_NAME})


def test_plain_text_and_old_tls_get_nothing(control: Control) -> None:
    address = ("127.0.0.1", control.listener.port)
    with socket.create_connection(address, timeout=5) as link:
        link.sendall(b"POST /v1/join HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        assert not link.recv(64).startswith(b"HTTP")
    old = ssl.create_default_context()
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection(address, timeout=5) as link, pytest.raises(ssl.SSLError):
        old.wrap_socket(link)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff", b'{"node": "../x"}', b"x" * 100_000])
def test_a_body_that_is_not_a_request_is_refused_by_name(control: Control, content: bytes) -> None:
    with control.client(None) as client:
        answer = client.post("/v1/join", content=content, extensions={"sni_hostname": CONTROL_NAME})
    assert answer.status_code == 422
    assert answer.json()["error"] == "UsageError"


def test_a_host_is_given_the_overlay_under_its_own_name_only(control: Control, tmp_path: Path) -> None:
    control.overlay.add_gateway(NodeId("office"), "shop")
    office = control.identity(tmp_path / "office", "office")
    asyncio.run(office.join("https://127.0.0.1:1"))
    asked = OverlayRequest(public_key="A" * 43 + "=", endpoint="192.0.2.9:51820")
    view = asyncio.run(office.overlay(asked))
    assert [entry.shard for entry in view.entries] == ["office"]
    assert view.generation == control.overlay.generation()
    for path in ("/v1/nodes/other/overlay", "/v1/nodes/office/overlay"):
        with control.client(office if "other" in path else None) as client:
            answer = client.post(path, content=asked.model_dump_json(), extensions={"sni_hostname": CONTROL_NAME})
        assert answer.status_code == 403
    control.overlay.remove_gateway(NodeId("office"))
    with pytest.raises(AuthenticationFailed, match="no part"):
        asyncio.run(office.overlay(asked))


def said(letter: str) -> OverlayRequest:
    return OverlayRequest(public_key=letter * 42 + "A=", endpoint="192.0.2.9:51820")


def refused(work: Coroutine[object, object, object]) -> str:
    with pytest.raises(AuthenticationFailed) as refusal:
        asyncio.run(work)
    return str(refusal.value)


def test_the_host_of_a_gateway_that_was_added_again_has_lost_its_place(control: Control, tmp_path: Path) -> None:
    """Its certificate is good for an hour, but that is all that it says."""
    name = NodeId("office")
    control.overlay.add_gateway(name, "shop")
    old = control.identity(tmp_path / "old", name, token=control.tokens.replace(name))
    join(old)
    asyncio.run(old.overlay(said("B")))
    control.overlay.add_gateway(name, "shop")
    fresh = control.identity(tmp_path / "fresh", name, token=control.tokens.replace(name))
    with structlog.testing.capture_logs() as logs:
        assert "not admitted with this key" in refused(old.overlay(said("B")))
        assert "not admitted with this key" in refused(old.overlay(said("B")))
        assert "not admitted with this key" in refused(old.renew())
    assert [(one["event"], one["node"]) for one in logs] == [("turned away", "office")], "once, by name"
    join(fresh)
    asyncio.run(fresh.overlay(said("D")))
    asyncio.run(fresh.renew())
    assert "not admitted" in refused(old.overlay(said("B")))
    assert [one.joined for one in control.overlay.gateways()] == [True]
    old.certificate_file.unlink()
    assert "wrong, used or too old" in refused(old.join("https://127.0.0.1:1"))


def test_the_same_host_may_be_the_gateway_again_with_its_new_file(control: Control, tmp_path: Path) -> None:
    name = NodeId("office")
    control.overlay.add_gateway(name, "shop")
    first = control.tokens.replace(name)
    join(control.identity(tmp_path / "office", name, token=first))
    join(control.identity(tmp_path / "office", name, token=first))
    assert len(control.joined) == 1, "its certificate is still good"
    control.overlay.add_gateway(name, "shop")
    again = control.identity(tmp_path / "office", name, token=control.tokens.replace(name))
    join(again)
    asyncio.run(again.overlay(said("B")))
    asyncio.run(again.renew())


def test_a_gateway_that_was_removed_renews_nothing(control: Control, tmp_path: Path) -> None:
    control.overlay.add_gateway(NodeId("office"), "shop")
    office = control.identity(tmp_path / "office", "office")
    join(office)
    control.overlay.remove_gateway(NodeId("office"))
    assert "unknown, or gone" in refused(office.renew())


def test_a_node_that_is_gone_renews_joins_and_reports_nothing(control: Control, tmp_path: Path) -> None:
    node = control.identity(tmp_path / "n1", "n1")
    join(node)
    control.map.update_node(NodeId("n1"), state=NodeState.GONE)
    assert "unknown, or gone" in refused(node.renew())
    assert "unknown, or gone" in refused(node.report_notice(notice()))
    assert "unknown, or gone" in refused(node.renew_leases((HeldShard(shard=ShardId("s1"), epoch=1),)))
    node.certificate_file.unlink()
    assert "unknown, or gone" in refused(node.join("https://127.0.0.1:1"))
    assert (len(control.joined), control.notices) == (1, [])


def test_a_certificate_is_renewed_for_its_own_key_only(control: Control, tmp_path: Path) -> None:
    node = control.identity(tmp_path / "n1", "n1")
    join(node)
    other = control.identity(tmp_path / "other", "n1")
    asked = RenewRequest(csr_pem=other._csr())
    with control.client(node) as client:
        answer = client.post("/v1/renew", content=asked.model_dump_json(), extensions={"sni_hostname": CONTROL_NAME})
    assert (answer.status_code, answer.json()["what"]) == (403, "n1 was not admitted with this key")


def test_a_node_that_joins_anew_with_its_key_is_let_in_and_renews(control: Control, tmp_path: Path) -> None:
    """Its certificate has ended while nobody could renew it."""
    node = control.identity(tmp_path / "n1", "n1")
    join(node)
    node.certificate_file.unlink()
    join(node)
    asyncio.run(node.renew())
    asyncio.run(node.report_notice(notice()))


def test_an_address_in_use_is_named(control: Control, tmp_path: Path) -> None:
    second = ControlListener(
        "127.0.0.1", control.listener.port,
        authority=control.authority, credentials=control.credentials,
        admission=control.admission, admitted=AdmittedKeys(control.database),
        on_join=control.joined.append, on_notice=lambda _node, _notice: None, leases=control.leases,
        on_keep=control.keep, overlay=OverlayDesk(control.overlay),
    )  # fmt: skip
    with pytest.raises(ConfigurationError, match="cannot listen"):
        second.start()
