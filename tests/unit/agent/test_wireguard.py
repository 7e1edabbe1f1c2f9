import subprocess
from pathlib import Path

import pytest

from agent import wireguard
from agent.overlay_wire import OverlayPeer
from agent.wireguard import Tunnel, interface_name, settings
from engine.errors import MissingPart
from engine.model.ids import NodeId

PEER = OverlayPeer(node=NodeId("b"), public_key="PUB=", endpoint="192.0.2.2:51820", tunnel="10.99.0.2")


def test_a_key_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    first, second = (Tunnel("swwg1", tmp_path / "overlay", 51820) for _ in range(2))
    assert first.public_key == second.public_key
    assert len(first.public_key) == 44
    file = tmp_path / "overlay" / "wireguard.key"
    assert file.stat().st_mode & 0o777 == 0o600
    assert first.public_key not in file.read_text()


def test_a_peer_may_use_its_own_address_and_no_other() -> None:
    said = settings("SECRET", 51820, [PEER])
    assert "AllowedIPs = 10.99.0.2/32" in said
    assert said.count("AllowedIPs") == 1
    assert "Endpoint = 192.0.2.2:51820" in said


def test_names_differ_between_nodes_of_one_host_and_fit(tmp_path: Path) -> None:
    names = {interface_name(NodeId(f"n{number}"), tmp_path) for number in range(50)}
    assert len(names) == 50
    assert all(len(name) <= 15 for name in names)


def test_a_command_that_hangs_is_named_and_taken_for_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(command: list[str], **_: object) -> None:
        raise subprocess.TimeoutExpired(command, 10)

    monkeypatch.setattr("shutil.which", lambda name: name)
    monkeypatch.setattr("subprocess.run", hang)
    with pytest.raises(MissingPart, match="ip cannot be run"):
        Tunnel("swwg-none", tmp_path / "overlay", 51820).up()


def test_a_tunnel_that_could_not_be_set_up_is_set_up_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[list[str]] = []
    monkeypatch.setattr(wireguard, "run", lambda command, **_: said.append(command))
    Tunnel("swwg0", tmp_path / "overlay", 51820).configure("10.99.0.1", [])
    assert ["ip", "link", "set", "swwg0", "mtu", "1420", "up"] in said


def test_a_peer_that_cannot_be_reached_is_left_out_by_name_and_the_others_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """``wg`` refuses the whole configuration for one endpoint."""
    given: list[str] = []
    monkeypatch.setattr(wireguard, "run", lambda _command, stdin="": given.append(stdin))
    wrong = PEER.model_copy(update={"node": NodeId("typo"), "endpoint": "10.0.0.300:51820"})
    Tunnel("swwg0", tmp_path / "overlay", 51820).configure("10.99.0.1", [wrong, PEER])
    assert given[-1].count("[Peer]") == 1
    assert PEER.endpoint in given[-1]
    assert ["typo is left out" in record.getMessage() for record in caplog.records] == [True]
