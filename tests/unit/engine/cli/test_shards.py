"""``shardwright shards`` finds what is asked for, in a store of its own."""

from pathlib import Path

import pytest

from engine.clock import SystemClock
from engine.errors import ExitCode
from engine.model.capacity import Resources
from engine.model.ids import CellId, NodeId, PoolId, ShardId
from engine.model.market import PurchaseOption
from engine.model.money import usd
from engine.model.placement import Node, NodeState, ShardState
from engine.store.opened import opened_store
from tests.command import InProcess
from tests.small_configuration import GOOD

SMALL, LARGE = Resources(vcpus=1, memory_gib=1), Resources(vcpus=4, memory_gib=16, storage_iops=500)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Three shards: s1 and s2 on aws, s3 on gcp, which is measured as slower than it was bought."""
    file = tmp_path / "shardwright.toml"
    file.write_text(GOOD + f'\n[state]\ndirectory = "{tmp_path}/state"\n')
    (tmp_path / "state").mkdir()
    with opened_store(f"sqlite:///{tmp_path}/state/control.sqlite", SystemClock()) as store:
        for node, cell in (("a", "aws/1/us-east-1"), ("g", "gcp/1/europe-west1")):
            store.shard_map.put_node(
                Node(
                    id=NodeId(node),
                    cell=CellId(cell),
                    zone="z",
                    instance_type="t",
                    option=PurchaseOption.SPOT,
                    hourly_price=usd("1"),
                    resources=LARGE,
                    state=NodeState.JOINED,
                )
            )
        for shard, node, kind, size in (
            ("s1", "a", "cpu.small", SMALL),
            ("s2", "a", "cpu.large", LARGE),
            ("s3", "g", "cpu.large", LARGE),
        ):
            store.shard_map.add_shard(
                ShardId(shard), shard_type=kind, pool=PoolId("p"), node=NodeId(node), nominal=size
            )
        store.shard_map.set_state(ShardId("s2"), ShardState.READY)
        store.shard_map.set_measured(ShardId("s3"), LARGE.model_copy(update={"storage_iops": 90.0}))
    return file


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ((), ["s1", "s2", "s3"]),
        (("--type", "cpu.large"), ["s2", "s3"]),
        (("--provider", "aws"), ["s1", "s2"]),
        (("--region", "europe-west1"), ["s3"]),
        (("--state", "ready"), ["s2"]),
        (("--vcpus", "2"), ["s2", "s3"]),
        (("--storage-iops", "400"), ["s2"]),
        (("--type", "cpu.large", "--provider", "gcp", "--storage-iops", "400"), []),
    ],
)
def test_every_option_must_hold(command: InProcess, config: Path, options: tuple[str, ...], found: list[str]) -> None:
    told = command("shards", *options, "--config", config, "--output", "json")
    assert told.code == ExitCode.OK, told.err
    assert [row["shard"]["id"] for row in told.data] == found


def test_a_state_that_there_is_not(command: InProcess, config: Path) -> None:
    told = command("shards", "--state", "lost", "--config", config)
    assert told.code == ExitCode.USAGE
    assert "draining" in told.err
