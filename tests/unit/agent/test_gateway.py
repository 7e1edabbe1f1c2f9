from pathlib import Path

import pytest
from pydantic import SecretStr

from agent import gateway
from agent.config import load
from engine.fleet.gateways import render_gateway
from engine.model.ids import NodeId


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "gateway.json"
    text = render_gateway(
        NodeId("office"), SecretStr("token"), control_url="https://192.0.2.1:7000", control_ca_pem="PEM",
        underlay_mtu=1460,
    )  # fmt: skip
    file.write_text(text)
    file.chmod(0o600)
    return file


def test_its_file_says_who_it_is_and_where_it_joins(config: Path) -> None:
    read = load(config, {"SHARDWRIGHT_UNDERLAY_ADDRESS": "192.0.2.9"})
    assert (read.node, read.control_url, read.underlay_mtu) == ("office", "https://192.0.2.1:7000", 1460)
    assert read.join_token is not None
    assert read.join_token.get_secret_value() == "token"
    assert read.endpoint == "192.0.2.9:51820"


def test_a_node_behind_translation_says_where_it_is_reached(config: Path) -> None:
    read = load(config, {"SHARDWRIGHT_OVERLAY_ENDPOINT": "203.0.113.7:4000"})
    assert read.endpoint == "203.0.113.7:4000"


def test_without_what_it_needs_it_ends_and_says_so(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert gateway.main(["--config", str(config)]) != 0
    said = capsys.readouterr()
    assert "needs root" in said.err
    assert said.out == ""


def test_a_file_that_others_can_read_is_refused(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.chmod(0o644)
    assert gateway.main(["--config", str(config)]) == 2
    assert "chmod 600" in capsys.readouterr().err
