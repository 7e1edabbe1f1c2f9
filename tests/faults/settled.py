"""What must be true of a deployment whose rounds have ended, however often its control planes were killed."""

import random
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta

from dbos import DBOSClient

from agent.wire import GuestState, ShardStatus
from engine.allocation.holds import HoldPhase
from engine.allocation.lease import LeaseState
from engine.billing.base import ingest
from engine.clock import SystemClock, wait_until
from engine.durable import workflow_database_url
from engine.fleet.agent_client import AgentClients
from engine.fleet.certificates import CertificateAuthority, ControlCredentials
from engine.model.ids import NodeId
from engine.model.placement import NodeState, ShardState
from engine.model.plan import Plan, PlannedNode
from engine.model.value import Interval
from engine.store.holds import LeaseStore
from engine.store.opened import Store
from providers.base import SupportsBills
from tests.faults.deployment import NETWORKS, SHARDS, Deployment

_ORPHAN_SECONDS = 30.0


def assert_settled(deployment: Deployment) -> None:
    """After one round: bought once, created once, billed once, every shard up, and nothing besides."""
    with deployment.store() as store:
        plan = store.plans.target()
        assert plan is not None
        assert [made.id for made in store.plans.latest(10)] == [plan.id], "one plan was made the target, and once"
        assert len(store.records.latest(10)) == 1
        assert_bought_once(deployment, store, plan)
        assert_nodes(deployment, store, planned_nodes(plan))
        assert {shard.epoch for shard in store.shard_map.search()} == {1}
        assert_shards(deployment, store)
    assert_billed_once(deployment, planned_nodes(plan))
    assert_gone(deployment)


def assert_gone(deployment: Deployment) -> None:
    """Every workflow has ended well, no process is left of any control plane, and all of it can be destroyed."""
    assert_nothing_unfinished(deployment)
    assert_nobody_left(deployment)
    deployment.destroy()
    assert deployment.instances() == []
    assert deployment.units_taken("harbor") == 0


def planned_nodes(plan: Plan) -> Mapping[NodeId, PlannedNode]:
    return {planned.node.id: planned for cell in plan.cells for planned in cell.nodes}


def assert_bought_once(deployment: Deployment, store: Store, plan: Plan) -> None:
    leases = LeaseStore(store.database)
    nodes = planned_nodes(plan)
    assert leases.phase(plan.id) == HoldPhase.CONFIRMED
    assert leases.groups_in(HoldPhase.HOLDING, HoldPhase.CONFIRMING, HoldPhase.RELEASING) == ()
    states = {lease.key: lease.state for lease in leases.of_group(plan.id)}
    assert states == {planned.token: LeaseState.CONFIRMED for planned in nodes.values()}
    for network in NETWORKS:
        here = {node: planned.token for node, planned in nodes.items() if planned.node.cell.startswith(f"{network}/")}
        reserved = deployment.reservations(network)
        assert {one.node: one.token for one in reserved} == here
        assert len(reserved) == len(here)
        if network == "harbor":  # a won auction keeps its units from others for a while, bought or not
            assert deployment.units_taken(network) == len(here), "no hold is left beside the reservations"


def assert_nodes(deployment: Deployment, store: Store, planned: Mapping[NodeId, PlannedNode]) -> None:
    """Exactly one instance runs for each node, and the shard map knows which."""
    running = deployment.instances()
    assert Counter(record.node for record in running) == Counter(list(planned))
    assert {record.node: record.token for record in running} == {name: one.token for name, one in planned.items()}
    here = store.shard_map.nodes(states=[NodeState.EXPECTED, NodeState.JOINED, NodeState.RECLAIMING])
    assert {node.id: (node.state, node.instance_id) for node in here} == {
        record.node: (NodeState.JOINED, record.instance_id) for record in running
    }


def assert_shards(deployment: Deployment, store: Store) -> None:
    """Every shard is bound and runs on its node at its epoch, and nowhere else."""
    shards = store.shard_map.search()
    assert len(shards) == SHARDS
    assert {shard.state for shard in shards} == {ShardState.BOUND}
    assert {binding.shard for binding in store.shard_map.bindings()} == {shard.id for shard in shards}
    copies = sorted((node, one.shard, one.epoch, one.state) for node, one in copies_on_nodes(deployment, store))
    assert copies == sorted((s.node, s.id, s.epoch, GuestState.RUNNING) for s in shards)


def copies_on_nodes(deployment: Deployment, store: Store) -> list[tuple[NodeId, ShardStatus]]:
    """What the agents say is on their nodes, those of nodes that were given up included while they run."""
    clock, folder = SystemClock(), deployment.configuration.state.directory / "fleet"
    credentials = ControlCredentials(CertificateAuthority.load_or_create(folder, clock), folder / "control", clock)
    agents = AgentClients(store.shard_map.node, credentials, clock, random.Random(1))
    running = [NodeId(node.node) for node in deployment.sandbox.status().nodes]
    found = [(node, shard) for node in running for shard in agents(node).status().shards]
    agents.close()
    return found


def assert_billed_once(deployment: Deployment, planned: Mapping[NodeId, PlannedNode]) -> None:
    """Each node is one resource on the bill of its provider, and on nobody else's; nothing that is paid for idles."""
    now = SystemClock().now()
    period = Interval(start=now - timedelta(hours=1), end=now)
    billed: dict[str, set[tuple[str, str | None]]] = {}
    for name, provider in deployment.providers.items():
        assert isinstance(provider, SupportsBills)
        for charge in ingest(provider.bill(period)):
            paid_and_unused = "no node" in charge.charge_description and charge.charge_period.end == period.end
            assert not paid_and_unused, f"{name}: {charge.resource_id}"
            node = dict(charge.tags).get("shardwright-node", "")
            if node:
                billed.setdefault(node, set()).add((name, charge.resource_id))
    assert {node: {name for name, _ in resources} for node, resources in billed.items()} == {
        node: {one.node.cell.split("/", 1)[0]} for node, one in planned.items()
    }
    assert {node: len(resources) for node, resources in billed.items()} == dict.fromkeys(planned, 1)


def assert_nothing_unfinished(deployment: Deployment) -> None:
    """Every workflow has ended well."""
    configuration = deployment.configuration
    url = workflow_database_url(configuration.state.directory, configuration.database_url)
    client = DBOSClient(system_database_url=url)
    try:
        ended = {one.workflow_id: one.status for one in client.list_workflows(load_input=False, load_output=False)}
    finally:
        client.destroy()
    assert set(ended.values()) == {"SUCCESS"}, ended


def assert_nobody_left(deployment: Deployment) -> None:
    """What a killed control plane had started ends by itself."""

    def left() -> list[str]:
        return [process for run in deployment.runs for process in run.left_behind()]

    clock = SystemClock()
    assert wait_until(lambda: not left(), clock, timeout_seconds=_ORPHAN_SECONDS), left()
