"""The server as the agent's own watcher sees it."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from agent.config import MetadataFlavour
from agent.metadata import MetadataAddress
from agent.reclaim import MetadataWatch
from agent.wire import NoticeReport
from engine.clock import ManualClock
from engine.model.ids import NodeId
from providers.registry import open_attestor
from providers.sandbox import netns
from providers.sandbox.contract import InstanceState, SandboxInstance, SandboxNotice
from providers.sandbox.metadata import MetadataServer
from providers.sandbox.nodes import HostedNode, HostedNodes, Place
from tests.instance_identity import settings, signers

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
ADDRESS = "127.77.9.9"


def hosted(kind: str, *, noticed: bool) -> HostedNode:
    notice = SandboxNotice(instance_id="i-1", node="n1", seen_at=NOW, at=NOW + timedelta(seconds=30), reason="taken")
    return HostedNode(
        provider="p",
        kind=kind,
        account="acct",
        place=Place(name="n1", namespace=None, address=ADDRESS, metadata_url=""),
        instance=SandboxInstance(
            instance_id="i-1",
            node="n1",
            region="r",
            zone="z",
            instance_type="t",
            spot=True,
            state=InstanceState.RUNNING,
            user_data="true",
            private_ip=None,
            launched_at=NOW,
        ),
        notice=notice if noticed else None,
    )


@pytest.fixture
def nodes() -> HostedNodes:
    return HostedNodes()


@pytest.fixture
def url(nodes: HostedNodes) -> Iterator[str]:
    server = MetadataServer(nodes, ManualClock(NOW), signers())
    address, port = server.listen(netns.listen(ADDRESS, 0), by_called_address=True)
    yield f"http://{address}:{port}"
    server.close()


@pytest.mark.parametrize("flavour", list(MetadataFlavour))
def test_the_agents_watcher_sees_a_notice_at_every_kind_of_provider(
    flavour: MetadataFlavour, nodes: HostedNodes, url: str
) -> None:
    async def look_twice() -> tuple[NoticeReport | None, NoticeReport | None]:
        watch = MetadataWatch(url, flavour, NodeId("n1"), ManualClock(NOW))
        nodes.replace([hosted(flavour.value, noticed=False)])
        before = await watch.look()
        nodes.replace([hosted(flavour.value, noticed=True)])
        after = await watch.look()
        await watch.close()
        return before, after

    before, after = asyncio.run(look_twice())
    assert before is None
    assert after is not None
    assert after.at == NOW + timedelta(seconds=30)


def test_an_address_without_an_instance_is_told_nothing(url: str) -> None:
    assert httpx.get(f"{url}/latest/meta-data/instance-id", trust_env=False).status_code == 404


def test_a_body_does_not_confuse_the_next_request(nodes: HostedNodes, url: str) -> None:
    nodes.replace([hosted("aws", noticed=False)])
    with httpx.Client(base_url=url, trust_env=False) as client:
        headers = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
        token = client.put("/latest/api/token", headers=headers, content=b"GET / HTTP/1.1\r\n\r\n").text
        answer = client.get("/latest/meta-data/instance-id", headers={"X-aws-ec2-metadata-token": token})
    assert answer.text == "i-1"


@pytest.mark.parametrize("flavour", ["aws", "gcp", "azure"])
def test_what_an_instance_is_told_of_itself_convinces_the_control_plane(
    url: str, nodes: HostedNodes, flavour: str
) -> None:
    nodes.put(hosted(flavour, noticed=False))

    async def evidence() -> str:
        metadata = MetadataAddress(url, MetadataFlavour(flavour))
        try:
            return await metadata.identity("1.challenge")
        finally:
            await metadata.close()

    attestor = open_attestor(settings(flavour), clock=ManualClock(NOW))
    assert attestor is not None
    found = attestor.attested(asyncio.run(evidence()), "1.challenge")
    assert (found.instance_id, found.account) == ("i-1", "acct")
