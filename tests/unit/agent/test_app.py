"""The agent's routes without TLS: the peer's identity is put into the scope as PeerProtocol does."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent.app import AgentApi
from agent.config import AgentConfig
from agent.shards import ShardHost
from agent.wire import NodeStatus, control_identity, node_identity
from engine.clock import ManualClock
from engine.model.capacity import Resources
from engine.model.ids import MoveId, NodeId, ShardId

Ask = Callable[..., httpx.Response]


@pytest.fixture
def ask(config: AgentConfig, host: ShardHost, clock: ManualClock) -> Ask:
    app = AgentApi(config, host, clock.now()).app()

    def send(verb: str, path: str, peer: str | None = control_identity(), **more: Any) -> httpx.Response:
        async def with_peer(scope: Any, receive: Any, send_: Any) -> None:
            await app(scope | {"shardwright.peer": peer}, receive, send_)

        async def once() -> httpx.Response:
            transport = httpx.ASGITransport(app=with_peer)
            async with httpx.AsyncClient(transport=transport, base_url="https://n1") as client:
                return await client.request(verb, path, **more)

        return asyncio.run(once())

    return send


@pytest.mark.parametrize(
    "peer", [None, "", node_identity(NodeId("n1")), node_identity(NodeId("n2")), "spiffe://x/control"]
)
def test_only_the_control_plane_may_command(ask: Ask, peer: str | None) -> None:
    for verb, path in (("GET", "/v1/status"), ("POST", "/v1/shards"), ("POST", "/v1/shards/s1/release")):
        answer = ask(verb, path, peer=peer, content="{}")
        assert (answer.status_code, answer.json()["error"]) == (403, "AuthenticationFailed")


def test_the_status_says_what_the_node_is(ask: Ask) -> None:
    status = NodeStatus.model_validate_json(ask("GET", "/v1/status").content)
    assert (status.node, status.shards, status.accelerator) == ("n1", (), None)
    assert status.resident_bytes > 0


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"epoch": "1"}', '{"epoch": 1, "more": 2}'])
def test_a_bad_body_is_refused_by_name(ask: Ask, content: str) -> None:
    answer = ask("POST", "/v1/shards/s1/release", content=content)
    assert (answer.status_code, answer.json()["error"]) == (422, "UsageError")


@pytest.mark.parametrize("shard", ["..", ".x", "a%2Fb", "x" * 200, "a b"])
def test_a_shard_id_cannot_leave_its_folder(ask: Ask, shard: str, tmp_path: Path) -> None:
    answer = ask("POST", f"/v1/shards/{shard}/release", content='{"epoch": 1}')
    assert answer.status_code in (404, 422)
    assert list((tmp_path / "epochs").iterdir()) == []


def test_a_body_without_end_is_cut_off(ask: Ask) -> None:
    answer = ask("POST", "/v1/shards", content=b"x" * 1_000_000)
    assert answer.status_code == 422
    assert "too large" in answer.json()["what"]


def test_a_stale_epoch_is_refused_and_a_newer_one_is_remembered(ask: Ask, host: ShardHost) -> None:
    assert ask("POST", "/v1/shards/s1/release", content='{"epoch": 5}').status_code == 204
    for path in ("release", "move/abort"):
        body = '{"epoch": 4}' if path == "release" else '{"epoch": 4, "move": "m1"}'
        answer = ask("POST", f"/v1/shards/s1/{path}", content=body)
        assert (answer.status_code, answer.json()["error"]) == (412, "StaleEpoch")
    assert host.epochs.get(ShardId("s1")) == 6


def test_a_shard_that_is_not_here_is_not_found(ask: Ask) -> None:
    assert ask("GET", "/v1/shards/s1").json()["error"] == "NotFound"
    destination = ask("GET", "/v1/shards/s1/move/destination").json()
    assert (destination["present"], destination["committed"]) == (False, False)


def test_room_is_kept_until_it_is_given_up_or_runs_out(ask: Ask, host: ShardHost) -> None:
    def reserve(move: str, vcpus: float) -> httpx.Response:
        wanted = {"vcpus": vcpus, "memory_gib": 0.25, "storage_iops": 0.0, "network_mbps": 0.0}
        return ask("POST", "/v1/shards/s1/move/reserve", json={"move": move, "epoch": 1, "resources": wanted})

    assert reserve("m1", 1.5).status_code == 204
    assert reserve("m1", 1.5).status_code == 204  # the same move again
    refused = reserve("m2", 1.0)
    assert (refused.status_code, refused.json()["error"]) == (507, "InsufficientCapacity")
    assert "vcpus: 2.5 wanted of 2" in refused.json()["why"]
    host.unreserve(MoveId("m1"))
    assert reserve("m2", 1.0).status_code == 204


def test_what_the_node_does_not_count_does_not_limit(ask: Ask, host: ShardHost) -> None:
    host.require_room(Resources(vcpus=1, memory_gib=0.25, network_mbps=10_000))


@pytest.mark.parametrize("image", ["nothing", "../records"])
def test_an_unknown_image_is_refused(ask: Ask, image: str) -> None:
    body = {
        "shard": "s1", "epoch": 1,
        "resources": {"vcpus": 1.0, "memory_gib": 0.25, "storage_iops": 0.0, "network_mbps": 0.0},
        "image": image, "address": "10.9.0.2/16", "mac": "52:54:00:09:00:02", "disk_mib": 1,
    }  # fmt: skip
    answer = ask("POST", "/v1/shards", json=body)
    assert (answer.status_code, answer.json()["error"]) == (422, "UsageError")
