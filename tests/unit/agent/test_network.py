import socket
import subprocess
from collections.abc import Callable

import pytest

from agent import network
from agent.network import free_port, nobody, tap_name
from engine.errors import MissingPart
from engine.model.ids import NodeId, ShardId


def test_a_tap_has_a_name_that_the_kernel_takes_and_no_two_share() -> None:
    names = {tap_name(NodeId(f"node-{n}"), ShardId("shard" * 20 + str(s))) for n in range(3) for s in range(3)}
    assert len(names) == 9
    assert all(len(name) <= 15 for name in names)


def test_a_free_port_can_be_listened_on() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", free_port("127.0.0.1")))


def test_nobody_has_the_last_address_of_the_overlay() -> None:
    assert str(nobody("10.9.0.2/16")) == "10.9.255.254"


@pytest.mark.parametrize(
    "ask",
    [lambda: network.add_tap("sw0", 1400), lambda: network.remove_tap("sw0"), lambda: network.shape("sw0", 0)],
)
def test_a_program_that_hangs_is_named(monkeypatch: pytest.MonkeyPatch, ask: Callable[[], None]) -> None:
    def hang(command: list[str], **_: object) -> None:
        raise subprocess.TimeoutExpired(command, 10)

    monkeypatch.setattr("subprocess.run", hang)
    with pytest.raises(MissingPart, match="does not end"):
        ask()
