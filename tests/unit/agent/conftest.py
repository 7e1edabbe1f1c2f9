"""An agent's configuration and host in a folder of their own, and guests that are plain processes."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from agent import guest
from agent.config import AgentConfig
from agent.guest import GuestRecord
from agent.limits import Cgroups, group_name
from agent.shards import ShardHost
from agent.wire import GuestProfile, NetworkMode
from engine.model.capacity import Resources
from engine.model.ids import NodeId, ShardId

PROFILE = GuestProfile(qemu_version="7.2", machine="pc-i440fx-7.2", accelerator="tcg", cpu="max", image_digest="d")


def guest_record(name: str = "s1", **changes: object) -> GuestRecord:
    return GuestRecord(
        shard=ShardId(name), resources=Resources(vcpus=1, memory_gib=0.125), image="records",
        address="10.9.0.2/16", mac="52:54:00:09:00:02", disk_mib=64, profile=PROFILE, network=NetworkMode.USER,
        forwarded_port=1,
    ).model_copy(update=changes)  # fmt: skip


@pytest.fixture
def config(tmp_path: Path) -> AgentConfig:
    return AgentConfig(
        control_url="https://127.0.0.1:1", node=NodeId("n1"), join_token=SecretStr("t"), control_ca_pem="PEM",
        capacity=Resources(vcpus=2, memory_gib=1, storage_iops=500), work_dir=str(tmp_path),
        underlay_address="127.0.0.1",
    )  # fmt: skip


@pytest.fixture
def host(config: AgentConfig) -> ShardHost:
    return ShardHost(config)


@pytest.fixture
def left_behind(config: AgentConfig) -> Iterator[Callable[..., GuestRecord]]:
    """Put a guest into the work folder as an earlier agent would have left it; its process sleeps."""
    processes: list[subprocess.Popen[bytes]] = []

    def leave(name: str = "s1", *, alive: bool = True, **changes: object) -> GuestRecord:
        folder = config.work / "shards" / name
        folder.mkdir(parents=True)
        process = guest.start([sys.executable, "-c", "import time; time.sleep(60)"], folder)
        processes.append(process)
        record = guest_record(name, pid=process.pid, start_ticks=guest.start_ticks(process.pid), **changes)
        (folder / "shard.json").write_text(record.model_dump_json())
        if not alive:
            process.kill()
            process.wait()
        return record

    yield leave
    for process in processes:
        process.kill()
        process.wait()
    for folder in (config.work / "shards").glob("*"):
        Cgroups().remove(group_name(config.work, config.node, ShardId(folder.name)))
