"""The store's answer to a node, and that the simulated store decides as the real one does."""

import random
from datetime import UTC, datetime

import pytest

from agent.wire import KeepRequest, Verdict
from engine.clock import ManualClock
from engine.errors import StaleEpoch
from engine.migration.keeping import keep
from engine.model.capacity import Resources
from engine.model.ids import CellId, MoveId, NodeId, PoolId
from engine.model.market import PurchaseOption
from engine.model.money import usd
from engine.model.placement import Node
from engine.store.database import Database
from engine.store.shard_map import ShardMap
from tests.move_simulator.control import Store
from tests.move_simulator.node import RESOURCES, SHARD
from tests.move_simulator.world import NODES

A, B, _ = NODES
M1 = MoveId("m1")


@pytest.fixture
def shard_map(database: Database) -> ShardMap:
    opened = ShardMap(database, ManualClock(datetime(2026, 1, 1, tzinfo=UTC)))
    for name in NODES:
        opened.put_node(
            Node(
                id=name, cell=CellId("x/1/r"), zone="z", instance_type="t", option=PurchaseOption.SPOT,
                hourly_price=usd("0.1"), resources=Resources(vcpus=4, memory_gib=4),
            )
        )  # fmt: skip
    opened.add_shard(SHARD, shard_type="cpu.small", pool=PoolId("p"), node=A, nominal=RESOURCES)
    return opened


def ask(shard_map: ShardMap, node: NodeId, epoch: int, move: MoveId = M1) -> Verdict:
    return keep(shard_map, node, SHARD, KeepRequest(move=move, epoch=epoch))


def test_a_kept_shard_cannot_be_committed_any_more(shard_map: ShardMap) -> None:
    for _ in range(2):
        assert ask(shard_map, A, 1) == Verdict(yours=True, epoch=2)
    with pytest.raises(StaleEpoch):
        shard_map.move(SHARD, expected_epoch=1, to_node=B, move_id=M1)


def test_a_committed_shard_cannot_be_kept_any_more(shard_map: ShardMap) -> None:
    shard_map.move(SHARD, expected_epoch=1, to_node=B, move_id=M1)
    assert ask(shard_map, A, 1) == Verdict(yours=False, epoch=2)
    assert ask(shard_map, A, 2) == Verdict(yours=False, epoch=2)
    assert shard_map.get(SHARD).node == B


def test_a_shard_that_was_given_back_is_told_without_another_swap(shard_map: ShardMap) -> None:
    shard_map.move(SHARD, expected_epoch=1, to_node=B, move_id=M1)
    shard_map.move(SHARD, expected_epoch=2, to_node=A, move_id=M1)
    assert ask(shard_map, A, 2) == Verdict(yours=True, epoch=3)


def test_nobody_ends_the_move_of_a_shard_that_is_not_his(shard_map: ShardMap) -> None:
    assert ask(shard_map, B, 1) == Verdict(yours=False, epoch=1)
    assert shard_map.get(SHARD).epoch == 1


def test_a_shard_that_is_gone_is_nobodys(shard_map: ShardMap) -> None:
    shard_map.remove(SHARD)
    assert ask(shard_map, A, 1) == Verdict(yours=False, epoch=1)


def test_the_simulated_store_decides_as_the_real_one(shard_map: ShardMap) -> None:
    simulated, dice = Store(A), random.Random(3)
    for _ in range(150):
        epoch = simulated.epoch - dice.randrange(3)
        node, move = dice.choice(NODES), MoveId(f"m{dice.randrange(2)}")
        answers = []
        for store in (simulated, shard_map):
            try:
                found = store.move(SHARD, expected_epoch=epoch, to_node=node, move_id=move)
                answers.append((found.node, found.epoch))
            except StaleEpoch:
                answers.append(None)
        assert answers[0] == answers[1]
