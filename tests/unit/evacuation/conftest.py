from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from engine.clock import ManualClock
from engine.composition.leaving import Drains
from engine.composition.storage import Storage
from engine.durable import durable_workflows
from engine.evacuation import workflow
from engine.events import unseen
from engine.model.ids import PoolId
from engine.model.placement import NodeState
from engine.store.attachments import Attachments
from engine.store.database import Database
from tests.evacuation_world import NOTICE, Evacuated, World
from tests.small_orders import AWS, AZURE, GCP, NOW, filled


@pytest.fixture
def world(database: Database) -> World:
    clock = ManualClock(NOW)
    found = World(clock, filled(database, clock))
    for node in (AWS, GCP, AZURE):
        found.shard_map.update_node(node, agent_url=f"https://{node}:7070")
    return found


@pytest.fixture
def workflows(world: World, database: Database, tmp_path: Path) -> str:
    """Where the real DBOS keeps evacuations of this world; the AWS node is taken back."""
    storage = Storage(world.shard_map, Attachments(database), cast(Any, None), {})
    workflow.configure(
        workflow.EvacuationContext(
            shard_map=world.shard_map, fleet=cast(Any, world), moves=cast(Any, world), placements={},
            ranks={PoolId("web"): 0}, observe=unseen, give_back=world.bought,
            drains=Drains(world.shard_map, {}, world.clock, world), storage=storage,
            clock=world.clock, under_way=world.under_way, unsettled=world.unsettled,
        )
    )  # fmt: skip
    world.shard_map.update_node(AWS, state=NodeState.RECLAIMING)
    return f"sqlite:///{tmp_path / 'dbos.sqlite'}"


@pytest.fixture
def evacuated(workflows: str) -> Iterator[Evacuated]:
    """What the evacuation of the AWS node reports."""
    with durable_workflows("evacuations", workflows):
        yield lambda: workflow.start_evacuation(NOTICE).get_result()
