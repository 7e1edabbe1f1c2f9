"""What the tests of a real sandbox share: buying a node on it, and looking at what is there."""

import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from engine.clock import SystemClock
from providers.network.client import NetworkClient
from providers.network.wire import WireTerm
from providers.sandbox.control import NodeStatus, SandboxClient
from providers.sandbox.info import SandboxInfo


def eventually(check: Callable[[], object], *, seconds: float = 10.0, what: str) -> None:
    """Poll until ``check`` is true; fail when it is not in time."""
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)


def buy_node(info: SandboxInfo, node: str, user_data: str) -> str:
    """One unit of harbor's cheapest offer, through its public API; the reservation's id."""
    harbor = info.provider("harbor").settings()
    clock = SystemClock()
    token = harbor.credentials["token"].get_secret_value()
    with NetworkClient(str(harbor.endpoint), token, clock=clock) as network:
        offer = network.offers().offers[0]
        now = clock.now()
        quote = network.quote(offer.offer_id, quantity=1, term=WireTerm(start=now, end=now + timedelta(hours=1)))
        hold = network.hold(quote.quote_id, quantity=1, key=f"hold-{node}")
        reservation = network.confirm(
            hold.hold_id, key=f"confirm-{node}", node=node, token=f"shard:test:{node}:1", user_data=user_data
        )
    return reservation.reservation_id


def wait_for_node(client: SandboxClient, node: str) -> NodeStatus:
    eventually(lambda: node in {one.node for one in client.status().nodes}, what=f"node {node}")
    return next(one for one in client.status().nodes if one.node == node)


def console(info: SandboxInfo, node: str) -> str:
    path = Path(info.state_dir) / "nodes" / node / "console.log"
    return path.read_text() if path.exists() else ""
