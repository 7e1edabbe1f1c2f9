"""An order resizes a running shard of a real guest, which sees it and still has it after a move."""

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from dbos import DBOS

from agent import console
from agent.guest import RUN_FOLDER
from engine.events import unseen
from engine.model.capacity import Resources
from engine.model.ids import MoveId, NodeId, OrderId, ShardId
from engine.model.move import MovePhase, MoveRequest
from engine.model.order import Order, OrderKind, OrderState, Size
from engine.model.placement import ComponentName
from engine.model.plan import MoveCause
from engine.orders import resize, workflow
from engine.orders.workflow import take_orders
from engine.planner.inventory import Inventory
from engine.planner.policy import PlanPolicy
from engine.store.moves import MoveHistory
from engine.store.orders import Orders
from tests.durable_moves import durable_mover
from tests.small_fleet import NAMESPACE, SmallFleet

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(170)]
A, B = NodeId("nA"), NodeId("nB")
CARVED = Resources(vcpus=2, memory_gib=0.125, storage_iops=100)
"""Its guest has two virtual CPUs, whatever share of them it gets: both sides of the move must boot it with as many."""
SMALL = CARVED.model_copy(update={"vcpus": 0.25})
GROWN = Size(vcpus=1.0, memory_gib=0.25, storage_iops=400.0)


@pytest.fixture
def fleet() -> Iterator[SmallFleet]:
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("QEMU is not installed: nothing is resized")
    with tempfile.TemporaryDirectory(prefix="swt-") as folder, SmallFleet(Path(folder)) as running:
        yield running


class Spares:
    """None is released: this fleet has no spares."""

    def release(self, shard: object) -> None:
        raise AssertionError(f"{shard} was given up")


def configured(fleet: SmallFleet) -> tuple[Orders, MoveHistory]:
    orders, moves, spares = Orders(fleet.database), MoveHistory(fleet.database), cast(Any, Spares())
    workflow.configure(
        workflow.OrderContext(
            orders=orders, shard_map=fleet.shard_map, fleet=spares, moves=cast(Any, None), placements={},
            policy=PlanPolicy(), inventory=Inventory, fixed=frozenset, clock=fleet.clock, observe=unseen,
        )
    )  # fmt: skip
    resize.configure(
        resize.ResizeContext(
            orders=orders, shard_map=fleet.shard_map, fleet=spares, agents=fleet.clients, under_way=moves.under_way,
            fixed=frozenset, observe=unseen,
        )
    )  # fmt: skip
    return orders, moves


def carried_out(orders: Orders, name: str, shard: ShardId, wanted: Size, fleet: SmallFleet) -> Order:
    component = ComponentName(namespace=NAMESPACE, workload="w", component=shard)
    order = Order(id=OrderId(name), kind=OrderKind.RESIZE, asked_at=fleet.clock.now(), component=component, size=wanted)
    orders.put(order)
    take_orders()
    DBOS.retrieve_workflow(order.id).get_result()
    return orders.get(order.id)


def test_a_resized_guest_sees_what_it_was_given_and_keeps_it_through_a_move(fleet: SmallFleet) -> None:
    orders, _ = configured(fleet)
    shard, before = fleet.carve("grows", "nA", CARVED)

    def counted_mib(node: str) -> int:
        run = fleet.disk(node, shard.id).parent / RUN_FOLDER
        return asyncio.run(console.ask(run, "memory 1", "memory_kib", 10)) >> 10

    def rounds(node: NodeId, epoch: int) -> int:
        return fleet.clients(node).measure(shard.id, epoch, 1).measured.cpu_rounds_per_second or 0

    with durable_mover(fleet) as mover:
        assert carried_out(orders, "order-0", shard.id, Size(vcpus=0.25), fleet).problem is None
        client = fleet.start_client(shard)
        client.wait_for_records(10)
        slow, small = rounds(A, 1), counted_mib("nA")
        ended = carried_out(orders, "order-1", shard.id, GROWN, fleet)
        assert (ended.state, ended.problem) == (OrderState.ENDED, None)
        assert fleet.shard_map.get(shard.id).nominal == GROWN.of(SMALL)
        assert fleet.clients(A).shard(shard.id).resources == GROWN.of(SMALL)
        assert counted_mib("nA") - small == pytest.approx(128, abs=8)
        if "cpu" in before.limits_enforced:
            assert rounds(A, 1) > 1.3 * slow

        report = mover.move(
            MoveRequest(id=MoveId("m"), shard=shard.id, source=A, destination=B, cause=MoveCause.OPERATOR)
        )
        assert (report.phase, report.error) == (MovePhase.CLEANED, "")
        client.wait_for_records(client.acked() + 10)
        summary = client.finish()
        assert (summary.error, summary.acked) == ("", summary.sent)
        assert counted_mib("nB") - small == pytest.approx(128, abs=8)
        assert fleet.clients(B).shard(shard.id).resources == GROWN.of(SMALL)
        assert fleet.clients(B).status().reserved.memory_gib == 0.25

        refused = carried_out(orders, "order-2", shard.id, Size(vcpus=2.5), fleet)
        assert refused.problem is not None
        assert "up to 2 vCPUs while it runs" in refused.problem.what
        back = carried_out(orders, "order-3", shard.id, Size(memory_gib=SMALL.memory_gib, vcpus=0.5), fleet)
        assert back.problem is None
        assert counted_mib("nB") == pytest.approx(small, abs=8)
        assert fleet.shard_map.get(shard.id).nominal == Resources(vcpus=0.5, memory_gib=0.125, storage_iops=400)
