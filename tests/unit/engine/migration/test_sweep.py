from dataclasses import replace
from datetime import datetime, timedelta

from engine.migration.sweep import sweep
from engine.model.ids import ShardId
from engine.model.move import MovePhase
from engine.store.database import Database
from engine.store.moves import MoveHistory
from tests.move_simulator.world import NODES, Planned, World, request

SOURCE, DESTINATION, _ = NODES


def in_doubt() -> World:
    """The commit is in the store, and then everybody is silent."""
    world = World(quiet=True)
    swap = next(at for at in range(20) if _commits(at))
    world.planned = dict.fromkeys(range(swap + 1, swap + 2000), Planned.REQUEST_LOST)
    return world


def _commits(at: int) -> bool:
    probe = World(quiet=True, planned={at: Planned.CRASH_AFTER})
    epochs: list[int] = []
    probe.control.restart = lambda: epochs.append(probe.store.epoch)  # type: ignore[method-assign]
    probe.move(request())
    return epochs == [2]


def test_a_move_in_doubt_is_settled_once_the_nodes_answer(database: Database) -> None:
    world, history = in_doubt(), MoveHistory(database)
    with world.control.recording():
        world.control.run(request())
    report = world.store.reports.pop(request().id)  # the world's own sweep leaves it alone
    assert report.phase is MovePhase.IN_DOUBT
    history.put(report)

    assert sweep(world.control.context, history) == ()
    assert history.unsettled() == (report,)
    world.planned = {}
    while history.unsettled():  # the last of the memory may still be on its way at the first look
        sweep(world.control.context, history)
        world.timeline.sleep(3)
    (settled,) = history.latest(1)
    assert (settled.phase, settled.epoch_after) == (MovePhase.CLEANED, 2)
    assert sweep(world.control.context, history) == ()
    there = world.nodes[DESTINATION].guest
    assert there is not None
    assert there.running
    assert world.nodes[SOURCE].guest is None


def test_a_cold_restart_waits_until_the_lease_of_a_node_that_is_given_up_has_ended(database: Database) -> None:
    """It may only be cut off: its guest runs until its watchdog stops it."""
    world, history = in_doubt(), MoveHistory(database)
    with world.control.recording():
        world.control.run(request())
    report = world.store.reports.pop(request().id)  # the world's own sweep leaves it alone
    history.put(report)
    world.planned = {}
    there = world.nodes[DESTINATION].guest
    assert there is not None
    there.arrived = there.landed = False  # the node went before all of it had come
    world.store.gone.add(SOURCE)
    asked: list[datetime] = []

    def free_at(_shard: ShardId, since: datetime) -> datetime:
        asked.append(since)
        return ends

    ends = world.timeline.now() + timedelta(seconds=30)
    context = replace(world.control.context, free_at=free_at)
    (waits,) = sweep(context, history)
    assert waits.phase is MovePhase.IN_DOUBT
    assert "may run the shard until" in waits.error
    assert not there.running
    assert asked == [report.started_at]
    world.timeline.sleep(31)
    (restarted,) = sweep(context, history)
    assert (restarted.phase, restarted.strategy) == (MovePhase.CLEANED, "cold-restart")
    booted = world.nodes[DESTINATION].guest
    assert booted is not None
    assert booted.running


def test_every_unsettled_report_is_found_and_no_other(database: Database) -> None:
    world, history = World(quiet=True), MoveHistory(database)
    report = world.move(request())
    for number, phase in enumerate(MovePhase):
        asked = report.request.model_copy(update={"id": f"m{number}"})
        history.put(report.model_copy(update={"phase": phase, "request": asked}))
    found = {one.phase for one in history.unsettled()}
    assert found == {MovePhase.IN_DOUBT, MovePhase.COMMITTED, MovePhase.ROLLING_BACK}
