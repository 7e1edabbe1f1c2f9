import subprocess
from pathlib import Path

import pytest

from agent import overlay
from agent.overlay_state import Batches
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
