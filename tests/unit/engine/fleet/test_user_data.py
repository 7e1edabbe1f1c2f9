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


def test_a_node_that_its_provider_vouches_for_gets_no_secret() -> None:
    script = render_user_data(NODE, None, SETTINGS.model_copy(update={"run_lease_seconds": 30.0}))
    inside = json.loads(script.partition("SHARDWRIGHT_CONFIG'\n")[2].partition("\nSHARDWRIGHT_CONFIG\n")[0])
    assert "join_token" not in inside
    assert inside["run_lease_seconds"] == 30.0


def test_on_a_host_with_systemd_the_agent_becomes_a_service(tmp_path: Path) -> None:
    """systemctl and the interpreter note their arguments; everything else is the real script."""
    for name in ("python3", "systemctl"):
        (tmp_path / name).write_text(f'#!/bin/sh\n[ "$1" = -c ] || echo {name} "$@" >> "{tmp_path}/ran"\n')
        (tmp_path / name).chmod(0o700)
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path), "SHARDWRIGHT_SYSTEMD": str(tmp_path),
        "SHARDWRIGHT_UNIT_DIR": str(tmp_path), "SHARDWRIGHT_OVERLAY_ENDPOINT": "192.0.2.7:51820",
    }  # fmt: skip
    subprocess.run(["/bin/sh", "-c", render_user_data(NODE, TOKEN, SETTINGS)], env=environment, check=True, timeout=20)
    unit = (tmp_path / "shardwright-agent.service").read_text()
    config = tmp_path / "shardwright-agent/agent.json"
    assert f"ExecStart={tmp_path}/python3 -m agent --config {config}\n" in unit
    assert "KillMode=process" in unit
    given = [line for line in unit.splitlines() if line.startswith("Environment=SHARDWRIGHT")]
    assert given == ["Environment=SHARDWRIGHT_OVERLAY_ENDPOINT=192.0.2.7:51820"]
    assert (tmp_path / "ran").read_text().splitlines() == [
        "systemctl daemon-reload", "systemctl enable --now shardwright-agent.service",
    ]  # fmt: skip


def with_post_copy(tmp_path: Path, *, on: bool, works: bool = True, **more: str) -> subprocess.CompletedProcess[str]:
    """The real script; sysctl and the interpreter note what they are told."""
    for name, code in (("python3", 0), ("sysctl", 0 if works else 1), ("systemctl", 0)):
        (tmp_path / name).write_text(f'#!/bin/sh\n[ "$1" = -c ] || echo {name} "$1" >> "{tmp_path}/ran"\nexit {code}\n')
        (tmp_path / name).chmod(0o700)
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path), "SHARDWRIGHT_SYSCTL_DIR": str(tmp_path),
        "SHARDWRIGHT_SYSTEMD": str(tmp_path / "none"), **more,
    }  # fmt: skip
    script = render_user_data(NODE, TOKEN, SETTINGS.model_copy(update={"post_copy": on}))
    done = subprocess.run(
        ["/bin/sh", "-c", script], env=environment, check=False, timeout=20, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    return done


def test_with_post_copy_the_node_allows_it_now_and_after_every_boot(tmp_path: Path) -> None:
    with_post_copy(tmp_path, on=True)
    setting = tmp_path / "60-shardwright.conf"
    assert setting.read_text() == "vm.unprivileged_userfaultfd = 1\n"
    assert setting.stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "ran").read_text().splitlines() == ["sysctl -q", "python3 -m"]


def test_without_post_copy_no_setting_of_the_node_is_touched(tmp_path: Path) -> None:
    with_post_copy(tmp_path, on=False)
    assert not (tmp_path / "60-shardwright.conf").exists()
    assert (tmp_path / "ran").read_text().splitlines() == ["python3 -m"]
    script = render_user_data(NODE, TOKEN, SETTINGS)
    assert "userfaultfd" not in script
    assert "@" not in script.replace("@END@", "").partition("python=")[2]


def test_a_kernel_that_does_not_take_it_does_not_keep_the_agent_from_starting(tmp_path: Path) -> None:
    done = with_post_copy(tmp_path, on=True, works=False)
    assert "moves go without post-copy" in done.stderr
    assert (tmp_path / "ran").read_text().splitlines()[-1] == "python3 -m"


def test_on_a_host_that_somebody_else_looks_after_the_kernel_is_left_alone(tmp_path: Path) -> None:
    with_post_copy(tmp_path, on=True, SHARDWRIGHT_PYTHON=str(tmp_path / "python3"))
    assert not (tmp_path / "60-shardwright.conf").exists()
