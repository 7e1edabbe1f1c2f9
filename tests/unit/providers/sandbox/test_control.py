from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal

import httpx
import pytest

from engine.errors import UsageError
from providers.sandbox.contract import FaultMode, MarketOption
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
    SandboxClient,
    SandboxStatus,
    ServerStatus,
    SetFault,
    SetPrice,
)
from providers.sandbox.info import SandboxInfo
from providers.sandbox.underlay import Attachment

TOKEN = "a-long-random-token"
NODE = NodeStatus(
    node="n1", provider="aws", instance_id="i-1", instance_type="t", region="r", spot=True, namespace=None,
    address="127.77.1.1", reclaimed=True,
)  # fmt: skip


class Scribe:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def status(self) -> SandboxStatus:
        return SandboxStatus(servers=(ServerStatus(name="aws", pid=1, alive=True),), nodes=(NODE,))

    def reclaim(self, order: ReclaimNode) -> NodeStatus:
        if order.node != "n1":
            raise UsageError(f"no node {order.node}", why="there is n1", next_step="try n1")
        self.told.append(order)
        return NODE

    def set_price(self, order: SetPrice) -> Nothing:
        self.told.append(order)
        return Nothing()

    def make_cheaper(self, order: MakeCheaper) -> Cheaper:
        self.told.append(order)
        return Cheaper(changed=())

    def set_fault(self, order: SetFault) -> Nothing:
        self.told.append(order)
        return Nothing()

    def attach_client(self, order: NewClient) -> Attachment:
        return Attachment(name=order.name, namespace="ns", underlay_address="10.77.1.1")

    def open_relay(self, order: OpenRelay) -> RelayAddress:
        return RelayAddress(host="10.77.0.1", port=order.port)


@pytest.fixture
def scribe() -> Scribe:
    return Scribe()


@pytest.fixture
def info(scribe: Scribe) -> Iterator[SandboxInfo]:
    server = ControlServer(scribe, TOKEN)
    yield SandboxInfo(
        tag="sw12ab9f",
        state_dir="unused",
        started_at=datetime(2026, 11, 23, tzinfo=UTC),
        supervisor_pid=1,
        control_url=server.url,
        control_token=TOKEN,
    )
    server.close()


@pytest.fixture
def client(info: SandboxInfo) -> Iterator[SandboxClient]:
    client = SandboxClient(info)
    yield client
    client.close()


def test_orders_arrive_as_they_were_given(client: SandboxClient, scribe: Scribe) -> None:
    price = SetPrice(
        provider="aws", region="r", instance_type="t", option=MarketOption.SPOT, price=Decimal("0.000000001")
    )
    cheaper = MakeCheaper(instance_type="t", factor=Decimal("0.5"))
    assert client.reclaim("n1", 5) == NODE
    client.set_price(price)
    client.make_cheaper(cheaper)
    client.set_fault("aws", FaultMode.DOWN, 3)
    assert scribe.told == [
        ReclaimNode(node="n1", notice_seconds=5), price, cheaper,
        SetFault(provider="aws", mode=FaultMode.DOWN, seconds=3),
    ]  # fmt: skip
    assert client.status().nodes == (NODE,)
    assert client.attach_client("demo").underlay_address == "10.77.1.1"
    assert client.open_relay(7000) == RelayAddress(host="10.77.0.1", port=7000)


def test_a_refusal_comes_back_in_the_sandboxs_own_words(client: SandboxClient) -> None:
    with pytest.raises(UsageError) as refused:
        client.reclaim("n9")
    assert (refused.value.what, refused.value.why, refused.value.next_step) == ("no node n9", "there is n1", "try n1")


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/market/reclaim", "not json", 422),
        ("/market/reclaim", '{"node":"n1","notice_seconds":-1}', 422),
        ("/market/price", '{"provider":"aws","region":"r","instance_type":"t","option":"spot","price":0.1}', 422),
        ("/clients", '{"name":"../../etc"}', 422),
        ("/relay", '{"port":0}', 422),
        ("/relay", '{"port":1,"host":"example.org"}', 422),
        ("/nothing", "{}", 404),
        ("/relay", '{"port":1' + " " * 70_000 + "}", 404),
    ],
)
def test_bad_orders_are_refused(info: SandboxInfo, scribe: Scribe, path: str, body: str, status: int) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    answer = httpx.post(info.control_url + path, content=body, headers=headers, trust_env=False)
    assert answer.status_code == status
    assert scribe.told == []


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Bearer wrong", TOKEN, f"Basic {TOKEN}"])
def test_without_the_token_nothing_is_done(info: SandboxInfo, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    assert httpx.get(info.control_url + "/status", headers=headers, trust_env=False).status_code == 401


def test_a_sandbox_that_is_gone_is_named(info: SandboxInfo) -> None:
    gone = SandboxClient(info.model_copy(update={"control_url": "http://127.0.0.1:9"}))
    with pytest.raises(UsageError, match="does not answer"):
        gone.status()
    gone.close()
