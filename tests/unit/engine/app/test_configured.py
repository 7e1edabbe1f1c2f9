from pathlib import Path

import pytest

from engine.app.configured import find_configuration, part_checks, require_reachable
from engine.config import load_configuration
from engine.errors import ConfigurationError
from tests.small_configuration import GOOD


def test_the_doctor_looks_for_the_tunnel_too() -> None:
    parts = {part.name: part for part in (check() for check in part_checks())}
    wireguard = parts["wireguard"]
    assert wireguard.needed_for == "the overlay between nodes"
    assert wireguard.ok == bool(wireguard.version)
    assert "Go" in wireguard.remedy


def test_a_file_of_ones_own_comes_before_that_of_the_sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match="shardwright sandbox up"):
        find_configuration(None)
    sandbox = Path(".shardwright/sandbox/shardwright.toml")
    sandbox.parent.mkdir(parents=True)
    sandbox.touch()
    assert find_configuration(None) == sandbox
    Path("shardwright.toml").touch()
    assert find_configuration(None) == Path("shardwright.toml")
    assert find_configuration(sandbox) == sandbox


@pytest.mark.parametrize(
    ("control", "told"),
    [
        ("", "127.0.0.1:0"),
        ('listen = "0.0.0.0"\nport = 7440', "0.0.0.0:7440"),
        ('listen = "192.0.2.1"', "192.0.2.1:0"),
        ('advertise = "[::1]:7440"', "::1"),
        ('advertise = "localhost:7440"', "localhost:7440"),
    ],
)
def test_nodes_elsewhere_must_find_the_control_plane(tmp_path: Path, control: str, told: str) -> None:
    file = tmp_path / "shardwright.toml"
    file.write_text(f"{GOOD}\n[control]\n{control}\n")
    with pytest.raises(ConfigurationError, match="nodes at aws could not reach") as refused:
        require_reachable(load_configuration(file))
    assert told in refused.value.why


@pytest.mark.parametrize(
    ("control", "endpoint"),
    [
        ('listen = "0.0.0.0"\nport = 7440\nadvertise = "control.example.com:7440"', ""),
        ('listen = "192.0.2.1"\nport = 7440', ""),
        ("", 'endpoint = "http://127.0.0.1:5000"'),
    ],
)
def test_nodes_that_can_find_it_or_are_in_a_sandbox_are_no_problem(tmp_path: Path, control: str, endpoint: str) -> None:
    file = tmp_path / "shardwright.toml"
    file.write_text(GOOD.replace('kind = "aws"', f'kind = "aws"\n{endpoint}') + f"\n[control]\n{control}\n")
    require_reachable(load_configuration(file))
