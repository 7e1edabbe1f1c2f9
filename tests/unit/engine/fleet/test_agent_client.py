import gzip
import random
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from agent.memory import CHUNK_BYTES, MOST_CHUNKS_A_PATCH
from agent.peer import server_context
from agent.wire import MemoryPatch, MemoryRequest, MoveCommand, Problem
from engine.clock import ManualClock, SystemClock
from engine.errors import (
    AnswerTooLarge,
    InsufficientCapacity,
    NodeSilent,
    ProviderAnswerInvalid,
    ShardwrightError,
    StaleEpoch,
)
from engine.fleet import agent_client
from engine.fleet.agent_client import AgentClient, AgentClients
from engine.fleet.certificates import CertificateAuthority, ControlCredentials
from engine.model.capacity import Resources
from engine.model.ids import CellId, MoveId, NodeId, ShardId
from engine.model.market import PurchaseOption
from engine.model.money import usd
from engine.model.placement import Node, NodeState
from tests.unit.engine.fleet.test_certificates import csr

Handler = Callable[[httpx.Request], httpx.Response]
NODE, SHARD = NodeId("n1"), ShardId("s1")
URL = "https://10.0.0.1:7443/"


def client(handler: Handler, clock: ManualClock, url: str = URL) -> AgentClient:
    http = httpx.Client(transport=httpx.MockTransport(handler))
    return AgentClient(NODE, url, http, clock, random.Random(1))


def node_context(folder: Path, *, client_certificate: bool = True) -> ssl.SSLContext:
    """Of the node; the authority's files are in ``folder``/fleet."""
    authority = CertificateAuthority.load_or_create(folder / "fleet", SystemClock())
    key = ec.generate_private_key(ec.SECP256R1())
    certificate_file, key_file = folder / "node.pem", folder / "node.key"
    certificate_file.write_text(authority.sign_node(NODE, csr(NODE, key)).certificate_pem)
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return server_context(
        certificate=certificate_file,
        key=key_file,
        ca=folder / "fleet" / "ca.pem",
        client_certificate=client_certificate,
    )


@pytest.mark.parametrize("kind", [StaleEpoch, InsufficientCapacity])
def test_the_agents_error_comes_out_as_itself(clock: ManualClock, kind: type[ShardwrightError]) -> None:
    problem = Problem(error=kind.__name__, what="no", why="because", next_step="try else")
    agent = client(lambda _request: httpx.Response(412, content=problem.model_dump_json()), clock)
    with pytest.raises(kind) as caught:
        agent.resume(SHARD, MoveCommand(move=MoveId("m"), epoch=1))
    assert (caught.value.what, caught.value.why, caught.value.next_step) == ("no (node n1)", "because", "try else")


@pytest.mark.parametrize("name", ["NoSuchError", "ExitCode", "IntEnum", "__builtins__"])
def test_only_our_errors_are_raised_by_name(clock: ManualClock, name: str) -> None:
    problem = Problem(error=name, what="no")
    agent = client(lambda _request: httpx.Response(500, content=problem.model_dump_json()), clock)
    with pytest.raises(ShardwrightError) as caught:
        agent.status()
    assert type(caught.value) is ShardwrightError


@pytest.mark.parametrize("answer", [httpx.Response(200, text="<html>"), httpx.Response(502, text="bad gateway")])
def test_rubbish_is_named_as_such(clock: ManualClock, answer: httpx.Response) -> None:
    with pytest.raises(ProviderAnswerInvalid):
        client(lambda _request: answer, clock).status()


def test_a_silent_agent_is_asked_three_times(clock: ManualClock) -> None:
    asked: list[str] = []
    began = clock.now()

    def refuse(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        raise httpx.ConnectError("refused", request=request)

    with pytest.raises(NodeSilent, match="n1 does not answer"):
        client(refuse, clock).status()
    assert len(asked) == 3
    assert 0 < (clock.now() - began).total_seconds() < 1


def test_a_call_that_may_still_be_under_way_is_not_sent_again(clock: ManualClock) -> None:
    asked: list[str] = []

    def slow(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        raise httpx.ReadTimeout("slow", request=request)

    with pytest.raises(NodeSilent):
        client(slow, clock).status()
    assert len(asked) == 1


def test_the_certificate_is_checked_against_the_nodes_name(clock: ManualClock) -> None:
    seen: list[str] = []

    def note(request: httpx.Request) -> httpx.Response:
        seen.append(request.extensions["sni_hostname"])
        return httpx.Response(204)

    client(note, clock).release(SHARD, 1)
    assert seen == ["n1"]


@pytest.mark.parametrize("url", ["https://a:b", "https://a:99999", "https://" + "a" * 70 + ":1", "https://a..b:1"])
def test_an_address_that_is_none_is_one_of_our_errors(clock: ManualClock, url: str) -> None:
    """One that a store knows from before such were refused."""
    with httpx.Client(trust_env=False) as http, pytest.raises(NodeSilent, match="n1 does not answer"):
        AgentClient(NODE, url, http, clock, random.Random(1)).status()


@pytest.mark.parametrize("content", [b"no gzip", gzip.compress(b"0" * 1000, mtime=0)], ids=["broken", "whole"])
def test_nothing_is_unpacked(clock: ManualClock, content: bytes) -> None:
    asked: list[str] = []

    def packed(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers["accept-encoding"])
        return httpx.Response(200, headers={"content-encoding": "gzip"}, content=iter([content]))

    with pytest.raises(ProviderAnswerInvalid, match="encoding"):
        client(packed, clock).status()
    assert asked == ["identity"]


def test_an_answer_has_an_end(clock: ManualClock) -> None:
    sent: list[int] = []

    def endless() -> Iterator[bytes]:
        while True:
            sent.append(1 << 20)
            yield bytes(1 << 20)

    agent = client(lambda _request: httpx.Response(500, content=endless()), clock)
    with pytest.raises(AnswerTooLarge, match="never stops"):
        agent.status()
    assert len(sent) == 5


def test_the_largest_patch_of_memory_is_read(clock: ManualClock) -> None:
    chunks = ("ff" * CHUNK_BYTES,) * MOST_CHUNKS_A_PATCH
    patch = MemoryPatch(indexes=tuple(range(MOST_CHUNKS_A_PATCH)), data_hex=chunks)
    agent = client(lambda _request: httpx.Response(200, content=patch.model_dump_json()), clock)
    asked = MemoryRequest(move=MoveId("m"), epoch=1, indexes=patch.indexes)
    assert agent.memory(SHARD, asked) == patch


@contextmanager
def agents_of(folder: Path, listener: socket.socket) -> Iterator[AgentClients]:
    """Over real TLS, to a node that listens there; the authority is that of ``node_context``."""
    node = Node(
        id=NODE, cell=CellId("aws/a/eu"), zone="z", instance_type="m", option=PurchaseOption.SPOT,
        hourly_price=usd("0.1"), resources=Resources(vcpus=2, memory_gib=4), state=NodeState.JOINED,
        agent_url=f"https://127.0.0.1:{listener.getsockname()[1]}",
    )  # fmt: skip
    authority = CertificateAuthority.load_or_create(folder / "fleet", SystemClock())
    credentials = ControlCredentials(authority, folder / "fleet", SystemClock())
    with closing(AgentClients(lambda _node: node, credentials, SystemClock(), random.Random(1))) as agents:
        yield agents


def test_nothing_is_kept_that_a_node_wants_kept(tmp_path: Path) -> None:
    context, heard = node_context(tmp_path), list[bytes]()

    def answer() -> None:
        with context.wrap_socket(listener.accept()[0], server_side=True) as link:
            for _ in range(2):
                heard.append(link.recv(10_000))
                link.send(b"HTTP/1.1 200 OK\r\nset-cookie: a=b\r\ncontent-length: 0\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = threading.Thread(target=answer, daemon=True)
        serving.start()
        with agents_of(tmp_path, listener) as agents:
            for _ in range(2):
                with pytest.raises(ProviderAnswerInvalid):
                    agents(NODE).status()
        serving.join(10)
    assert [b"cookie" in request.lower() for request in heard] == [False, False]


@pytest.mark.parametrize("begins", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n"])
def test_a_node_that_says_a_byte_now_and_then_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begins: bytes
) -> None:
    """Over real TLS, in its answer's head and in its body."""
    monkeypatch.setattr(agent_client, "_BODY_SECONDS", 0.2 - agent_client._READ_SECONDS)
    context, over = node_context(tmp_path), threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def dribble() -> None:
        with context.wrap_socket(listener.accept()[0], server_side=True) as link:
            link.recv(10_000)
            link.send(begins)
            while not over.wait(0.01):
                link.send(b"H" if begins else b"HTTP/1.1 100 Continue\r\n\r\n")

    serving = threading.Thread(target=dribble, daemon=True)
    serving.start()
    with agents_of(tmp_path, listener) as agents, pytest.raises(NodeSilent, match="ReadTimeout"):
        agents(NODE).status()
    over.set()
    listener.close()
