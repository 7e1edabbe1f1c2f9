"""A control plane that carries out one resize: ``python tests/resize_process.py FOLDER [STEP]``.

With a step it is killed once that is done and before it is written down.
"""

import os
import signal
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from dbos import DBOS

from engine.clock import ManualClock
from engine.durable import durable_workflows
from engine.model.ids import PoolId, ShardId
from engine.model.order import OrderState, Size
from engine.model.placement import Shard, ShardState
from engine.orders import resize, workflow
from engine.store.opened import opened_store
from engine.store.shard_map import ShardMap
from tests.carried_orders import serve_orders, serve_resizes
from tests.resizing_node import ResizingNode
from tests.small_orders import AWS, NOW, SMALL, fill, resize_order

WANTED = Size(memory_gib=6.0, vcpus=0.5)
SPARE = ShardId("sw-aws-s9")


class Spares:
    def __init__(self, shard_map: ShardMap) -> None:
        self._map = shard_map

    def release(self, shard: Shard) -> None:
        self._map.remove(shard.id)


def killed_behind(step: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(step)
    def once(*arguments: Any) -> Any:
        step(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)

    return once


def main(folder: Path, step: str | None) -> None:
    clock = ManualClock(NOW)
    with opened_store(f"sqlite:///{folder / 'control.sqlite'}", clock) as store:
        order = resize_order(WANTED)
        if not store.shard_map.nodes():
            fill(store.shard_map)
            store.shard_map.add_shard(
                SPARE, shard_type="cpu.small", pool=PoolId("web"), node=AWS, nominal=SMALL, state=ShardState.READY
            )
            store.orders.put(order)
        fleet = Spares(store.shard_map)
        serve_orders(store.orders, store.shard_map, clock, fleet=fleet, moves=None)
        node = ResizingNode(folder / "node.json", SMALL)
        serve_resizes(store.orders, store.shard_map, fleet=fleet, agents=node, under_way=store.moves.under_way)
        if step is not None:
            setattr(resize, f"_{step}", killed_behind(getattr(resize, f"_{step}")))
        with durable_workflows("resizes", f"sqlite:///{folder / 'dbos.sqlite'}"):
            workflow.take_orders()
            DBOS.retrieve_workflow(order.id).get_result()
        assert store.orders.get(order.id).state is OrderState.ENDED
        print(store.orders.get(order.id).model_dump_json())


if __name__ == "__main__":
    main(Path(sys.argv[1]), *(sys.argv[2:] or [None]))
