from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from engine.clock import ManualClock
from engine.model.capacity import Resources
from engine.model.ids import CellId, NodeId, PoolId, ShardId
from engine.model.market import PurchaseOption
from engine.model.money import usd
from engine.model.placement import ComponentName, Node
from engine.namespace.resolver import Resolver
from engine.store.database import Database, metadata
from engine.store.shard_map import ShardMap
from engine.store.shard_tables import TABLES


@pytest.fixture
def shard_map(tmp_path: Path) -> Iterator[ShardMap]:
    """acme/shop/web/0 on an AWS node, acme/shop/web/1 on a Google one; a third shard is bound to nothing."""
    database = Database(f"sqlite:///{tmp_path / 'store.db'}")
    metadata.create_all(database.engine, tables=TABLES)
    shard_map = ShardMap(database, ManualClock(datetime(2026, 11, 23, 12, tzinfo=UTC)))
    size = Resources(vcpus=1, memory_gib=0.125)
    for name, cell in (("n1", "aws/1/us-east-1"), ("n2", "gcp/p/europe-west1")):
        shard_map.put_node(
            Node(
                id=NodeId(name),
                cell=CellId(cell),
                zone="z",
                instance_type="t",
                option=PurchaseOption.SPOT,
                hourly_price=usd("0.04"),
                resources=size,
            )
        )
    for name, on in (("s1", "n1"), ("s2", "n2"), ("s3", "n1")):
        shard_map.add_shard(ShardId(name), shard_type="cpu.small", pool=PoolId("web"), node=NodeId(on), nominal=size)
    for index, shard in enumerate(("s1", "s2")):
        component = ComponentName(namespace="acme", workload="shop", component="web", index=index)
        shard_map.bind(component, ShardId(shard))
    yield shard_map
    database.dispose()


@pytest.fixture
def resolver(shard_map: ShardMap) -> Resolver:
    return Resolver(shard_map)
