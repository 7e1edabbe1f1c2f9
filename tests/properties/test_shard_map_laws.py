"""Laws of the epoch: one owner per epoch, it only ever rises by one, and a stale compare-and-swap never wins."""

from datetime import UTC, datetime
from tempfile import TemporaryDirectory

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from engine.clock import ManualClock
from engine.errors import StaleEpoch
from engine.model.capacity import Resources
from engine.model.ids import CellId, NodeId, PoolId, ShardId
from engine.model.market import PurchaseOption
from engine.model.money import usd
from engine.model.placement import Node
from engine.store.database import Database, metadata
from engine.store.shard_map import ShardMap
from engine.store.shard_tables import TABLES

NODES = tuple(NodeId(f"n{i}") for i in range(3))
SHARD = ShardId("s")


class OneOwnerPerEpoch(RuleBasedStateMachine):
    """Several controllers, each acting on what it last read, against one map."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.database = Database(f"sqlite:///{self.folder.name}/laws.db")
        metadata.create_all(self.database.engine, tables=TABLES)
        self.map = ShardMap(self.database, ManualClock(datetime(2026, 1, 1, tzinfo=UTC)))
        tiny = Resources(vcpus=1, memory_gib=1)
        for node in NODES:
            self.map.put_node(
                Node(
                    id=node,
                    cell=CellId("p/a/r"),
                    zone="z",
                    instance_type="t",
                    option=PurchaseOption.SPOT,
                    hourly_price=usd("1"),
                    resources=tiny,
                )
            )
        self.shard = self.map.add_shard(SHARD, shard_type="cpu.small", pool=PoolId("p"), node=NODES[0], nominal=tiny)
        self.owners = {1: NODES[0]}
        self.seen = [1, 1, 1]

    @rule(who=st.integers(0, 2))
    def read(self, who: int) -> None:
        self.seen[who] = self.map.get(SHARD).epoch

    @rule(who=st.integers(0, 2), to_node=st.sampled_from(NODES))
    def move(self, who: int, to_node: NodeId) -> None:
        expected, newest = self.seen[who], max(self.owners)
        try:
            moved = self.map.move(SHARD, expected_epoch=expected, to_node=to_node)
        except StaleEpoch:
            assert expected != newest
        else:
            assert expected == newest
            assert moved.epoch == newest + 1
            assert moved.epoch not in self.owners
            self.owners[moved.epoch] = to_node

    @invariant()
    def the_map_shows_the_owner_of_the_newest_epoch(self) -> None:
        now = self.map.get(SHARD)
        assert self.owners[now.epoch] == now.node
        assert now.epoch == max(self.owners)
        assert (now.address, now.mac) == (self.shard.address, self.shard.mac)

    def teardown(self) -> None:
        self.database.dispose()
        self.folder.cleanup()


TestOneOwnerPerEpoch = OneOwnerPerEpoch.TestCase
TestOneOwnerPerEpoch.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
