"""``shardwright gateway`` on a store of its own."""

import json
from pathlib import Path

import pytest

from engine.errors import ExitCode
from tests.command import InProcess
from tests.small_configuration import GOOD


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "shardwright.toml"
    state = f'\n[state]\ndirectory = "{tmp_path}/state"\n\n[control]\nport = 7000\nadvertise = "192.0.2.1:7000"\n'
    file.write_text(GOOD + state)
    return file


def test_a_gateway_gets_a_file_to_join_with_and_an_address(command: InProcess, config: Path) -> None:
    told = command("gateway", "add", "office", "--namespace", "shop", "--config", config)
    assert told.code == ExitCode.OK, told.err
    written = json.loads(told.out)
    assert (written["node"], written["control_url"]) == ("office", "https://192.0.2.1:7000")
    assert written["join_token"] not in told.err
    listed = command("gateway", "list", "--config", config, "--output", "json").data
    assert listed == [{"name": "office", "namespace": "shop", "address": "10.9.255.1", "joined": False}]
    assert "10.9.255.1" in command("gateway", "list", "--config", config).out


def test_adding_it_again_voids_the_file_that_was_made_before(command: InProcess, config: Path) -> None:
    tokens = set()
    for _ in range(2):
        told = command("gateway", "add", "office", "--namespace", "shop", "--config", config)
        tokens.add(json.loads(told.out)["join_token"])
    assert len(tokens) == 2


def test_one_that_is_removed_is_gone(command: InProcess, config: Path) -> None:
    command("gateway", "add", "office", "--namespace", "shop", "--config", config)
    assert command("gateway", "remove", "office", "--config", config).code == ExitCode.OK
    assert command("gateway", "list", "--config", config, "--output", "json").data == []
    command("gateway", "remove", "office", "--config", config).refused(ExitCode.USAGE, "no gateway office")


@pytest.mark.parametrize(
    ("name", "namespace", "said"),
    [
        ("office", "Not A Name", "the namespace"),
        ("../etc", "shop", "cannot be a gateway's name"),
        ("shardwright-control", "shop", "the control plane's"),
        ("Shardwright-CONTROL.", "shop", "the control plane's"),
    ],
)
def test_names_that_cannot_be(command: InProcess, config: Path, name: str, namespace: str, said: str) -> None:
    told = command("gateway", "add", name, "--namespace", namespace, "--config", config)
    assert told.code == ExitCode.USAGE
    assert said in told.err
    assert told.out == ""


def test_without_a_fixed_port_it_would_not_find_the_control_plane(command: InProcess, tmp_path: Path) -> None:
    file = tmp_path / "shardwright.toml"
    file.write_text(GOOD + f'\n[state]\ndirectory = "{tmp_path}/state"\n')
    told = command("gateway", "add", "office", "--namespace", "shop", "--config", file)
    told.refused(ExitCode.USAGE, "control.port")


@pytest.mark.parametrize("listen", ["0.0.0.0", "::"])
def test_an_address_that_is_no_hosts_is_told_to_no_gateway(command: InProcess, tmp_path: Path, listen: str) -> None:
    file = tmp_path / "shardwright.toml"
    control = f'[control]\nlisten = "{listen}"\nport = 7000\n'
    file.write_text(GOOD + f'\n[state]\ndirectory = "{tmp_path}/state"\n\n{control}')
    told = command("gateway", "add", "office", "--namespace", "shop", "--config", file)
    told.refused(ExitCode.USAGE, "control.advertise")
    assert command("gateway", "list", "--config", file, "--output", "json").data == []
