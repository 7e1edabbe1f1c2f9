"""Durable moves on a small fleet: their workflows run in this process and are kept in the fleet's folder."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dbos import DBOS

from engine.durable import WORKFLOW_VERSION
from engine.fleet.agent_client import AgentClient
from engine.migration.base import MoveContext, MoveLimits, Observer
from engine.migration.workflow import DurableMover, configure
from engine.model.ids import MoveId, NodeId
from engine.model.move import MovePhase
from tests.small_fleet import SmallFleet


def _nobody(_move: MoveId, _phase: MovePhase) -> None:
    return


@contextmanager
def durable_mover(
    fleet: SmallFleet,
    *,
    agents: Callable[[NodeId], AgentClient] | None = None,
    observer: Observer = _nobody,
    limits: MoveLimits | None = None,
) -> Iterator[DurableMover]:
    """One at a time in a process; opened again on the same fleet, it resumes what was under way."""
    DBOS.destroy()
    DBOS(
        config={
            "name": "shardwright-test",
            "system_database_url": f"sqlite:///{fleet.folder / 'dbos.sqlite'}",
            "application_version": WORKFLOW_VERSION,
            "run_admin_server": False,
            "log_level": "ERROR",
        }
    )
    context = MoveContext(
        agents=agents or fleet.clients, shards=fleet.shard_map, clock=fleet.clock, limits=limits or MoveLimits(),
        observer=observer, storage=fleet.storage,
    )  # fmt: skip
    configure(context)
    DBOS.launch()
    try:
        yield DurableMover()
    finally:
        DBOS.destroy()
