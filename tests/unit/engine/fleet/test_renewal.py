"""The control plane's certificate is renewed under everything that shows it: real TLS, by a clock that is moved.

Certificates are issued by that clock and verified by the machine's. It begins more than an hour ago, so what is read at
first has expired by now; moving the clock is all that time passes.
"""

import random
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import structlog

from agent.peer import client_context
from agent.wire import CONTROL_NAME, Certificate
from engine.clock import ManualClock, SystemClock, wait_until
from engine.errors import ProviderUnavailable
from engine.fleet.agent_client import AgentClients
from engine.fleet.certificates import LEAF_LIFE
from engine.model.capacity import Resources
from engine.model.ids import CellId, NodeId, ShardId
from engine.model.market import PurchaseOption
from engine.model.money import usd
from engine.model.placement import Node, NodeState
from engine.store.database import Database
from tests.unit.engine.fleet.test_agent_client import node_context
from tests.unit.engine.fleet.test_join import Control

AGO = LEAF_LIFE + timedelta(minutes=5)
NODE, SHARD = NodeId("n1"), ShardId("s1")


@pytest.fixture
def past() -> ManualClock:
    return ManualClock(SystemClock().now() - AGO)


@pytest.fixture
def control(tmp_path: Path, database: Database, past: ManualClock) -> Iterator[Control]:
    running = Control(tmp_path, database, past)
    yield running
    running.listener.stop()


@pytest.fixture
def agents(control: Control, tmp_path: Path) -> Iterator[AgentClients]:
    """Clients of one agent, which asks for the control plane's certificate and says yes to everything."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Agent)
    server.socket = node_context(tmp_path).wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    node = Node(
        id=NODE, cell=CellId("aws/a/eu"), zone="z", instance_type="m", option=PurchaseOption.SPOT,
        hourly_price=usd("0.1"), resources=Resources(vcpus=2, memory_gib=4), state=NodeState.JOINED,
        agent_url=f"https://127.0.0.1:{server.server_address[1]}",
    )  # fmt: skip
    clock = ManualClock(SystemClock().now())
    with closing(AgentClients(lambda _node: node, control.credentials, clock, random.Random(1))) as clients:
        yield clients
    server.shutdown()
    server.server_close()


class _Agent(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


def _is_believed(control: Control) -> bool:
    """Whether a node that connects now accepts what the listener shows."""
    context = client_context(ca=control.credentials.ca_file)
    with socket.create_connection(("127.0.0.1", control.listener.port), timeout=5) as link:
        try:
            context.wrap_socket(link, server_hostname=CONTROL_NAME).close()
        except ssl.SSLCertVerificationError:
            return False
    return True


def _comes_to_be_believed(control: Control) -> bool:
    return wait_until(lambda: _is_believed(control), SystemClock(), timeout_seconds=5, every_seconds=0.01)


@pytest.mark.parametrize("first", ["listener", "clients"])
def test_a_renewal_reaches_the_listener_and_the_clients(
    control: Control, agents: AgentClients, past: ManualClock, first: str
) -> None:
    """Whoever of the two hears of it first."""
    assert not _is_believed(control)
    with pytest.raises(ProviderUnavailable, match="n1 does not answer"):
        agents(NODE).release(SHARD, 1)
    past.advance(AGO)
    if first == "clients":
        agents(NODE).release(SHARD, 1)
    assert _comes_to_be_believed(control)
    agents(NODE).release(SHARD, 1)


def test_a_listener_whose_renewal_fails_goes_on_and_renews_later(
    control: Control, past: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> Certificate:
        raise RuntimeError("nobody thought of this")

    with structlog.testing.capture_logs() as logs, monkeypatch.context() as patched:
        patched.setattr(control.authority, "sign_control", refuse)
        past.advance(AGO)
        assert wait_until(lambda: len(logs) > 1, SystemClock(), timeout_seconds=5, every_seconds=0.01)
        assert not _is_believed(control)
    assert {(line["event"], line["error"]) for line in logs} == {
        ("the listener keeps its certificate, and tries again", "nobody thought of this")
    }
    assert _comes_to_be_believed(control)
