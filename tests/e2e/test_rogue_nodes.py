"""Machines that are on the same network but do not belong: everything that they try is refused, the shard runs on."""

import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from agent.peer import client_context
from agent.wire import CommitRequest, EpochRequest, Landing, MirrorRequest, MoveCommand, PrepareRequest, ShardStatus
from engine.clock import ManualClock
from engine.errors import MoveFailed, ShardwrightError, StaleEpoch
from engine.fleet.certificates import LEAF_LIFE, CertificateAuthority, ControlCredentials
from engine.model.ids import MoveId, NodeId
from engine.model.placement import Shard
from tests.small_fleet import RunningClient, SmallFleet

pytestmark = [pytest.mark.root, pytest.mark.slow]
A, B, MOVE = NodeId("nA"), NodeId("nB"), MoveId("m-rogue")


@pytest.fixture(scope="module")
def fleet() -> Iterator[SmallFleet]:
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("QEMU is not installed: no rogue node is tried against a live move")
    with tempfile.TemporaryDirectory(prefix="swt-") as folder, SmallFleet(Path(folder)) as running:
        yield running


@pytest.fixture(scope="module")
def carved(fleet: SmallFleet) -> tuple[Shard, ShardStatus]:
    return fleet.carve("prey", "nA", disk_mib=16)


@pytest.fixture
def client(fleet: SmallFleet, carved: tuple[Shard, ShardStatus]) -> Iterator[RunningClient]:
    """Proves after the attack that the shard still serves its one connection."""
    running = fleet.start_client(carved[0])
    running.wait_for_records(5)
    yield running
    running.wait_for_records(running.acked() + 5)
    assert running.finish().error == ""


def prepare(fleet: SmallFleet, carved: tuple[Shard, ShardStatus], source: NodeId = A, **changes: object) -> Landing:
    shard, status = carved
    request = PrepareRequest(
        move=MOVE, epoch=1, source=source, resources=status.resources, image=status.image, address=status.address,
        mac=status.mac, disk_mib=status.disk_mib, profile=status.profile,
    )  # fmt: skip
    return fleet.clients(B).prepare(shard.id, request.model_copy(update=changes))


def agent_url(fleet: SmallFleet, node: str) -> str:
    return f"https://{fleet.attachments[node].underlay_address}:7443"


def test_plain_text_reaches_no_agent(fleet: SmallFleet, client: RunningClient) -> None:
    with pytest.raises(httpx.TransportError):
        httpx.get(agent_url(fleet, "nA").replace("https", "http") + "/v1/status", trust_env=False)


def test_a_control_plane_of_another_fleet_is_refused(fleet: SmallFleet, client: RunningClient, tmp_path: Path) -> None:
    stranger = CertificateAuthority.load_or_create(tmp_path, fleet.clock)
    credentials = ControlCredentials(stranger, tmp_path, fleet.clock)
    credentials.current()
    context = client_context(
        ca=fleet.credentials.ca_file, certificate=credentials.certificate_file, key=credentials.key_file
    )
    with httpx.Client(verify=context, trust_env=False) as http, pytest.raises(httpx.TransportError):
        http.get(agent_url(fleet, "nA") + "/v1/status", extensions={"sni_hostname": "nA"})


def test_an_expired_certificate_of_the_control_plane_is_refused(
    fleet: SmallFleet, client: RunningClient, tmp_path: Path
) -> None:
    long_ago = ManualClock(fleet.clock.now() - 2 * LEAF_LIFE)
    authority = CertificateAuthority.load_or_create(fleet.folder / "fleet", long_ago)
    credentials = ControlCredentials(authority, tmp_path, long_ago)
    credentials.current()
    context = client_context(ca=credentials.ca_file, certificate=credentials.certificate_file, key=credentials.key_file)
    with httpx.Client(verify=context, trust_env=False) as http, pytest.raises(httpx.TransportError):
        http.get(agent_url(fleet, "nA") + "/v1/status", extensions={"sni_hostname": "nA"})


def test_a_node_of_this_fleet_may_not_command_another(
    fleet: SmallFleet, client: RunningClient, carved: tuple[Shard, ShardStatus]
) -> None:
    stolen = fleet.agent_folder("nB") / "tls"
    context = client_context(ca=stolen / "ca.pem", certificate=stolen / "node.pem", key=stolen / "node.key")
    with httpx.Client(verify=context, trust_env=False) as http:
        answer = http.post(
            f"{agent_url(fleet, 'nA')}/v1/shards/{carved[0].id}/release",
            content=EpochRequest(epoch=99).model_dump_json(),
            extensions={"sni_hostname": "nA"},
        )
    assert (answer.status_code, answer.json()["error"]) == (403, "AuthenticationFailed")


def test_a_stale_epoch_is_refused_by_a_real_agent(
    fleet: SmallFleet, client: RunningClient, carved: tuple[Shard, ShardStatus]
) -> None:
    with pytest.raises(StaleEpoch):
        fleet.clients(A).release(carved[0].id, 0)


def test_plain_text_at_a_landing_is_refused_and_the_landing_still_waits(
    fleet: SmallFleet, client: RunningClient, carved: tuple[Shard, ShardStatus]
) -> None:
    landing = prepare(fleet, carved)
    with socket.create_connection((landing.host, landing.memory_port), timeout=5) as link:
        link.sendall(b"QEVM\x00\x00\x00\x03" + b"\x00" * 64)
        link.settimeout(5)
        assert _closed(link)
    nbd = f"nbd://{landing.host}:{landing.disk_port}/disk"
    seen = subprocess.run(["qemu-img", "info", nbd], capture_output=True, text=True, timeout=20, check=False)
    assert seen.returncode != 0
    assert "TLS" in seen.stderr
    assert fleet.clients(B).destination_status(carved[0].id).present
    fleet.clients(B).abort(carved[0].id, MoveCommand(move=MOVE, epoch=1))


def test_a_landing_takes_the_shard_of_its_source_only(
    fleet: SmallFleet, client: RunningClient, carved: tuple[Shard, ShardStatus]
) -> None:
    """Prepared for another node's certificate, so that nA itself is the one that does not belong."""
    shard = carved[0]
    landing = prepare(fleet, carved, source=NodeId("nC"))
    with pytest.raises(ShardwrightError, match="QEMU refuses"):
        fleet.clients(A).mirror(shard.id, MirrorRequest(move=MOVE, epoch=1, landing=landing))
    assert fleet.clients(A).resume(shard.id, MoveCommand(move=MOVE, epoch=1)).running
    fleet.clients(B).abort(shard.id, MoveCommand(move=MOVE, epoch=1))


def test_a_source_hands_nothing_to_a_machine_without_the_destinations_name(
    fleet: SmallFleet, client: RunningClient, carved: tuple[Shard, ShardStatus]
) -> None:
    shard = carved[0]
    landing = prepare(fleet, carved).model_copy(update={"node": NodeId("nC")})
    with pytest.raises(ShardwrightError, match="QEMU refuses"):
        fleet.clients(A).mirror(shard.id, MirrorRequest(move=MOVE, epoch=1, landing=landing))
    assert fleet.clients(A).resume(shard.id, MoveCommand(move=MOVE, epoch=1)).running
    fleet.clients(B).abort(shard.id, MoveCommand(move=MOVE, epoch=1))


def test_a_different_guest_is_not_taken(
    fleet: SmallFleet, client: RunningClient, carved: tuple[Shard, ShardStatus]
) -> None:
    other = carved[1].profile.model_copy(update={"image_digest": "another"})
    with pytest.raises(MoveFailed, match="image_digest"):
        prepare(fleet, carved, profile=other)
    assert not fleet.clients(B).destination_status(carved[0].id).present


def test_a_landing_does_not_run_before_its_memory_is_there(
    fleet: SmallFleet, client: RunningClient, carved: tuple[Shard, ShardStatus]
) -> None:
    prepare(fleet, carved)
    with pytest.raises(MoveFailed, match="has not arrived"):
        fleet.clients(B).commit(carved[0].id, CommitRequest(move=MOVE, epoch=1))
    assert not fleet.clients(B).destination_status(carved[0].id).running
    fleet.clients(B).abort(carved[0].id, MoveCommand(move=MOVE, epoch=1))


def _closed(link: socket.socket) -> bool:
    """Whether the other side has hung up, whatever it said first."""
    try:
        while link.recv(4096):
            continue
    except ConnectionResetError:
        return True
    return True
