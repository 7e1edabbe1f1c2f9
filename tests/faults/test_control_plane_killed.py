"""``kill -9`` of the control plane in a round: it goes on where it was, and nothing is bought, made or billed twice."""

import signal
from pathlib import Path

import pytest

from engine.app.gateways import add_gateway
from engine.clock import SystemClock
from engine.demo.traffic import Traffic, prove
from engine.model.ids import PlanId
from engine.model.market import PurchaseOption
from engine.model.move import MovePhase
from engine.model.placement import NodeState, Shard, ShardState
from engine.model.plan import MoveCause
from engine.store.opened import Store
from providers.sandbox.gateway import GatewayProcess
from tests.faults.deployment import Deployment
from tests.faults.settled import assert_gone, assert_nobody_left, assert_settled, assert_shards

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(300)]


def killed(deployment: Deployment, *points: str) -> None:
    """A control plane for each point, one after another; each takes the round on and dies there."""
    for point in points:
        run = deployment.run(die=point)
        assert run.wait() == -signal.SIGKILL, f"{point}:\n{run.said()}"


def finished(deployment: Deployment) -> None:
    run = deployment.run()
    assert run.wait() == 0, run.said()
    assert "goes on where it was interrupted" in run.said()


def target(deployment: Deployment) -> PlanId | None:
    with deployment.store() as store:
        plan = store.plans.target()
    return None if plan is None else plan.id


def test_killed_while_holding_and_after_every_act_until_it_has_paid(deployment: Deployment) -> None:
    killed(deployment, "after:negotiate")
    won = deployment.units_taken("agora")
    killed(deployment, "holding:harbor")
    assert deployment.units_taken("agora") == won > 0, "the same bids won the same units"
    assert deployment.units_taken("harbor") == 1, "it has answered, and our store does not know it yet"
    killed(deployment, "after:hold", "after:adopt")
    planned = target(deployment)
    killed(deployment, "after:confirm")
    assert deployment.units_taken("harbor") == 1
    assert deployment.instances() == []
    finished(deployment)
    assert target(deployment) == planned
    assert_settled(deployment)


def test_killed_during_pulumi_up_with_and_without_its_engines(deployment: Deployment) -> None:
    killed(deployment, "creating:harbor")
    assert_nobody_left(deployment)
    planned = target(deployment)
    before = {record.instance_id for record in deployment.instances()}
    assert before
    killed(deployment, "creating:aws:alone")
    assert before < {record.instance_id for record in deployment.instances()}
    killed(deployment, "after:grow", "after:carve")
    finished(deployment)
    assert before < {record.instance_id for record in deployment.instances()}
    assert target(deployment) == planned
    assert_settled(deployment)


def test_killed_at_the_notice_and_twice_in_the_move_that_follows(deployment: Deployment) -> None:
    """The later control planes begin a round of their own while the evacuation goes on."""
    first = deployment.run("--serve", die="noticing")
    first.wait_to_say("record: round")
    refused = deployment.run()
    assert refused.wait() == 1
    assert "another control plane uses this state" in refused.said()
    with deployment.store() as store:
        shard = spot_shard(store)
        namespace = deployment.sandbox.attach_client("records").namespace
        bound = store.shard_map.bindings(shard=shard.id)[0].component.namespace
        file = add_gateway(deployment.configuration, store, "records", bound, SystemClock())
        gateway = GatewayProcess(namespace, file, deployment.folder / "gateway")
        traffic = Traffic(shard.address, deployment.folder / "records.jsonl", namespace)
        try:
            traffic.wait_for(20, SystemClock())
            deployment.sandbox.reclaim(shard.node)
            assert first.wait() == -signal.SIGKILL, first.said()
            for phase in (MovePhase.PRECOPY, MovePhase.SWITCHING):
                run = deployment.run("--serve", die=f"moving:{phase}")
                assert run.wait() == -signal.SIGKILL, run.said()
            last = deployment.run("--serve")
            last.wait_to_say("record: round")
            last.wait_to_say(f"move: {shard.id}: {shard.node} -> ")
            traffic.wait_for(20, SystemClock())
            acknowledged = traffic.acknowledged()
            summary = traffic.stop()
        finally:
            traffic.kill()
            gateway.close()
        assert last.interrupt() == 130
        assert (summary.connections, summary.error) == (1, "")
        assert_moved_once(deployment, store, shard, acknowledged)
        assert_shards(deployment, store)
        joined = {node.id for node in store.shard_map.nodes(states=[NodeState.JOINED])}
        running = [record.node for record in deployment.instances() if record.node != shard.node]
        assert sorted(running) == sorted(joined), "and the node that is taken back, until its provider ends it"
    assert_gone(deployment)


def spot_shard(store: Store) -> Shard:
    return next(
        shard
        for shard in store.shard_map.search(state=ShardState.BOUND)
        if store.shard_map.node(shard.node).option is PurchaseOption.SPOT
    )


def assert_moved_once(deployment: Deployment, store: Store, before: Shard, acknowledged: list[int]) -> None:
    """The move has ended well, its source is given up, and every record is on the one disk that the shard has now."""
    (report,) = [one for one in store.moves.latest(20) if one.request.cause is MoveCause.RECLAIM]
    assert (report.request.shard, report.phase, report.error) == (before.id, MovePhase.CLEANED, "")
    assert (report.epoch_before, report.epoch_after) == (1, 2)
    assert store.shard_map.node(before.node).state is NodeState.GONE
    now = store.shard_map.get(before.id)
    assert (now.address, now.mac) == (before.address, before.mac)
    disks = list(Path(deployment.info.state_dir).rglob(f"{before.id}/disk.raw"))
    assert [now.node in disk.parts for disk in disks] == [True]
    proof = prove(acknowledged, disks[0])
    assert proof.holds, proof
