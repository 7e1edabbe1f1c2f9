from datetime import UTC, datetime
from pathlib import Path

from engine.clock import ManualClock
from engine.composition.standing_now import StandingNow
from engine.model.capacity import Resources
from engine.model.composite import HealthState
from engine.model.ids import CellId, NodeId, ShardId
from engine.model.market import PurchaseOption
from engine.model.money import usd
from engine.model.placement import Node
from engine.store.opened import opened_store
from engine.store.shard_health import Reported
from tests.unit.engine.composition.cases import WEB, replica

SIZE = Resources(vcpus=1, memory_gib=1)


def test_who_serves_is_read_from_the_store_as_it_is_now(tmp_path: Path) -> None:
    clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    with opened_store(f"sqlite:///{tmp_path / 'store.db'}", clock) as store:
        node = Node(
            id=NodeId("n1"), cell=CellId("aws/1/r"), zone="z", instance_type="t", option=PurchaseOption.SPOT,
            hourly_price=usd("0.1"), resources=SIZE,
        )  # fmt: skip
        store.shard_map.put_node(node)
        for index, name in enumerate((ShardId("a"), ShardId("b"))):
            store.shard_map.add_shard(name, shard_type="cpu.small", pool=WEB, node=node.id, nominal=SIZE)
            store.shard_map.bind(replica(index), name)
        who = StandingNow(store, clock)

        def serving() -> list[bool]:
            return [standing.serves for _, standing in sorted(who(store.shard_map.bindings()).items(), key=str)]

        assert serving() == [True, True]
        ill = Reported(shard=ShardId("a"), epoch=1, state=HealthState.UNHEALTHY, reason="port 7000 is closed")
        store.health.report(node.id, [ill])
        assert serving() == [False, True]
        store.attachments.assign(replica(1), ShardId("lost"))
        told = who(store.shard_map.bindings())[replica(1)]
        assert told.reason.startswith("its storage lost is lost")  # and served all the same: nobody else is well
