import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from agent import overlay
from agent.overlay_state import Batches
from agent.overlay_wire import OverlayPeer, OverlayView
from engine.errors import MissingPart
from engine.model.ids import NodeId


def test_what_is_missing_is_said_and_the_node_does_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse() -> None:
        raise MissingPart("nft is not installed", next_step="install nftables")

    monkeypatch.setattr(overlay, "_require_parts", refuse)
    assert overlay.open_overlay(NodeId("n"), tmp_path, 51820) is None
    assert "nft is not installed" in caplog.text


def test_without_root_there_is_no_overlay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(MissingPart, match="root"):
        overlay._require_parts()


def test_each_program_that_is_not_there_is_named_with_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("os.access", lambda *_: True)
    monkeypatch.setattr("shutil.which", lambda name: None if name == "wg" else name)
    with pytest.raises(MissingPart, match="wg is not installed") as caught:
        overlay._require_parts()
    assert "wireguard-tools" in caught.value.next_step


def test_a_program_that_hangs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(command: list[str], **_: object) -> None:
        raise subprocess.TimeoutExpired(command, 20)

    monkeypatch.setattr("subprocess.run", hang)
    with pytest.raises(MissingPart, match="ip cannot be run"):
        overlay._links(Batches(nft=[], ip=["link add x"], bridge=[]))


class PlayedTunnel:
    """A device that can go away, and a ``wg`` that refuses what it is told to."""

    name, mtu, public_key = "swwg0", 1420, "KEY"

    def __init__(self, *_: object) -> None:
        self.present, self.refuses, self.peers = False, False, list[str]()

    def there(self) -> bool:
        return self.present

    def up(self) -> bool:
        made, self.present = not self.present, True
        self.peers = [] if made else self.peers
        return made

    def configure(self, _address: str, peers: Sequence[OverlayPeer]) -> None:
        if self.refuses:
            raise MissingPart("wg syncconf failed")
        self.peers = [peer.node for peer in peers]


def test_a_tunnel_whose_remaking_failed_half_way_gets_its_peers_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overlay, "Tunnel", PlayedTunnel)
    monkeypatch.setattr(overlay, "run", lambda *_, **_more: "")
    for name in ("_require_parts", "_probe_vxlan"):
        monkeypatch.setattr(overlay, name, lambda: None)
    (tmp_path / "overlay").mkdir()
    here = overlay.Overlay(NodeId("a"), tmp_path, 51820)
    tunnel = here._tunnel
    assert isinstance(tunnel, PlayedTunnel)
    peer = OverlayPeer(node=NodeId("b"), public_key="PUB=", endpoint="192.0.2.2:51820", tunnel="10.99.0.2")
    view = OverlayView(generation=1, tunnel="10.99.0.1", peers=(peer,), entries=())
    here.apply(view)
    assert tunnel.peers == ["b"]
    tunnel.present, tunnel.refuses = False, True
    with pytest.raises(MissingPart, match="syncconf"):
        here.apply(view)
    tunnel.refuses = False
    here.apply(view)
    assert tunnel.peers == ["b"]
