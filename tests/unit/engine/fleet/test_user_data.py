import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr

from agent.config import MetadataFlavour, load
from engine.fleet.user_data import UserDataSettings, render_user_data
from engine.model.capacity import Resources
from engine.model.ids import CellId, NodeId
from engine.model.market import PurchaseOption
from engine.model.money import usd
from engine.model.placement import Node

SETTINGS = UserDataSettings(
    control_url="https://10.0.0.1:7000", control_ca_pem="-----BEGIN\nline\n-----END\n", provider_kind="gcp"
)
TOKEN = SecretStr("t0ken-'$(reboot)`x`")
NODE = Node(
    id=NodeId("n1"), cell=CellId("gcp/p/r"), zone="z", instance_type="t", option=PurchaseOption.SPOT,
    hourly_price=usd("0.1"), resources=Resources(vcpus=2, memory_gib=4),
)  # fmt: skip


def test_the_same_node_gets_the_same_text() -> None:
    assert render_user_data(NODE, TOKEN, SETTINGS) == render_user_data(NODE, TOKEN, SETTINGS)


def test_a_shell_can_read_it() -> None:
    script = render_user_data(NODE, TOKEN, SETTINGS)
    assert script.startswith("#!/bin/sh\n")
    assert subprocess.run(["sh", "-n"], input=script.encode(), check=False).returncode == 0


@pytest.mark.parametrize(
    ("kind", "flavour"), [("aws", MetadataFlavour.AWS), ("something-new", MetadataFlavour.NETWORK)]
)
def test_run_as_cloud_init_would_it_starts_the_agent_with_a_private_configuration(
    tmp_path: Path, kind: str, flavour: MetadataFlavour
) -> None:
    """The interpreter is replaced by one that notes its arguments; everything else is the real script."""
    noted = tmp_path / "python"
    noted.write_text(f'#!/bin/sh\n[ "$1" = -c ] && exit 0\nprintf "%s\\n" "$@" > "{tmp_path}/argv"\n')
    noted.chmod(0o700)
    script = render_user_data(NODE, TOKEN, SETTINGS.model_copy(update={"provider_kind": kind}))
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "SHARDWRIGHT_PYTHON": str(noted)}
    subprocess.run(["/bin/sh", "-c", script], env=environment, check=True, timeout=20)
    file = tmp_path / "shardwright-agent/agent.json"
    assert file.stat().st_mode & 0o777 == 0o600
    argv = (tmp_path / "argv").read_text().split()
    assert argv == ["-m", "agent", "--config", str(file)]
    config = load(file, {})
    assert config.join_token.get_secret_value() == TOKEN.get_secret_value()
    assert config.control_ca_pem == SETTINGS.control_ca_pem
    assert (config.node, config.capacity, config.metadata_flavour) == ("n1", NODE.resources, flavour)
    assert config.work == file.parent


def test_the_configuration_inside_is_json() -> None:
    script = render_user_data(NODE, TOKEN, SETTINGS)
    inside = script.partition("SHARDWRIGHT_CONFIG'\n")[2].partition("\nSHARDWRIGHT_CONFIG\n")[0]
    assert json.loads(inside)["node"] == "n1"
    assert sys.executable not in script
