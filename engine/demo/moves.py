"""The two moves of the demo: a spot node is taken back, and a cheaper offer appears."""

from decimal import Decimal
from pathlib import Path

from pydantic import JsonValue
from rich.table import Table

from agent.record_client import RecordSummary
from agent.wire import NetworkMode
from engine.app.gateways import add_gateway
from engine.cli.console import table
from engine.cli.move_tables import gate_rows
from engine.clock import Clock, wait_until
from engine.config import Configuration
from engine.control_plane import ControlPlane
from engine.demo.show import Show
from engine.demo.traffic import Traffic, prove
from engine.errors import MoveFailed, ShardwrightError
from engine.model.ids import NodeId, provider_of
from engine.model.market import PurchaseOption
from engine.model.move import MovePhase, MoveReport
from engine.model.placement import Node, NodeState, Shard, ShardState
from engine.model.plan import MoveCause, MoveGateReport, Verdict
from providers.sandbox.contract import MarketOption
from providers.sandbox.control import MakeCheaper, SandboxClient
from providers.sandbox.gateway import GatewayProcess
from providers.sandbox.info import SandboxInfo

RECORDS_BEFORE, RECORDS_AFTER = 40, 40
NOTICE_SECONDS = 20.0
CHEAPER_BY = Decimal("0.15")


def reclaim(
    plane: ControlPlane, configuration: Configuration, info: SandboxInfo, work: Path, show: Show, clock: Clock
) -> dict[str, JsonValue]:
    """The market takes a spot node back while a client writes records over one connection to a shard on it.

    Without an overlay there is nothing that a connection could survive on: the move is then shown without a client.
    """
    shard, node = _victim(plane)
    sandbox = SandboxClient(info)
    facts: dict[str, JsonValue] = {}
    why_not = _no_overlay(plane, info, shard)
    if not why_not:
        host = sandbox.attach_client("demo").namespace
        namespace = plane.store.shard_map.bindings(shard=shard.id)[0].component.namespace
        file = add_gateway(configuration, plane.store, "demo-client", namespace, clock)
        gateway = GatewayProcess(host, file, work / "gateway")
        traffic = Traffic(shard.address, work / "records.jsonl", host)
        try:
            traffic.wait_for(RECORDS_BEFORE, clock)
            report = _taken_back(plane, sandbox, shard, node, show, clock)
            traffic.wait_for(RECORDS_AFTER, clock)
            acknowledged = traffic.acknowledged()
            summary = traffic.stop()
        finally:
            traffic.kill()
            gateway.close()
        facts = _proven(plane, work, shard, acknowledged, summary)
    else:
        show.result(f"no client is shown: {why_not}")
        report = _taken_back(plane, sandbox, shard, node, show, clock)
    now = plane.store.shard_map.get(shard.id)
    target = plane.store.shard_map.node(now.node)
    told = (
        f"; the client's longest wait was {facts['client_gap_ms']:.0f} ms on one connection, "
        f"{facts['records']} records, none missing, none doubled"
        if facts
        else ""
    )
    downtime = report.downtime_seconds * 1000
    show.result(f"reclaim: {shard.id} moved live from {node.cell} to {target.cell}: downtime {downtime:.0f} ms{told}")
    return {
        "shard": shard.id,
        "from": node.cell,
        "to": target.cell,
        "downtime_ms": round(downtime, 1),
        "memory_bytes": report.memory_bytes,
        "disk_bytes": report.disk_bytes,
        "seconds": (report.finished_at - report.started_at).total_seconds(),
        "epoch": now.epoch,
        **facts,
    }


def _no_overlay(plane: ControlPlane, info: SandboxInfo, shard: Shard) -> str:
    """Why no client can reach the shard; empty: it can."""
    if not info.namespaces:
        return "; ".join(info.limits)
    if plane.fleet.network_of(shard) is not NetworkMode.BRIDGE:
        return "the nodes have no overlay (shardwright doctor says what is missing)"
    return ""


def _taken_back(
    plane: ControlPlane, sandbox: SandboxClient, shard: Shard, node: Node, show: Show, clock: Clock
) -> MoveReport:
    """The provider gives notice; the report of the shard's move once the node is evacuated."""
    show.line(f"the market takes {node.id} back, where {shard.id} is")
    sandbox.reclaim(node.id)
    if not wait_until(lambda: plane.leaves(node.id), clock, timeout_seconds=NOTICE_SECONDS):
        raise MoveFailed(f"the reclaim of {node.id} was not noticed in {NOTICE_SECONDS:.0f} s")
    return _report_of(shard, plane.evacuation(node.id))


def _proven(
    plane: ControlPlane, work: Path, shard: Shard, acknowledged: list[int], summary: RecordSummary
) -> dict[str, JsonValue]:
    """What the client saw, and that the disk holds what was acknowledged. Raises MoveFailed when it does not."""
    proof = prove(acknowledged, _disk(work, plane.store.shard_map.get(shard.id)))
    if not proof.holds:
        raise MoveFailed(f"records are missing {proof.missing} or doubled {proof.doubled}")
    return {
        "client_gap_ms": round(summary.longest_gap_seconds * 1000, 1),
        "connections": summary.connections,
        "records": proof.records,
        "missing": len(proof.missing),
        "doubled": len(proof.doubled),
    }


def _victim(plane: ControlPlane) -> tuple[Shard, Node]:
    """A bound shard on a spot node whose pool may also live with another provider."""
    free = {pool.id for pool in plane.steps.terms.pools if len(pool.placement.providers) != 1}
    for shard in plane.store.shard_map.search(state=ShardState.BOUND):
        node = plane.store.shard_map.node(shard.node)
        if node.option is PurchaseOption.SPOT and shard.pool in free:
            return shard, node
    raise ShardwrightError("no component is bound to a shard on a spot node, so there is nothing to take back")


def _report_of(shard: Shard, reports: tuple[MoveReport, ...]) -> MoveReport:
    report = next((one for one in reports if one.request.shard == shard.id), None)
    if report is None or report.phase is not MovePhase.CLEANED:
        raise MoveFailed(f"{shard.id} did not move", why=report.error if report else "it was not evacuated")
    return report


def _disk(work: Path, shard: Shard) -> Path:
    """The shard's disk on its node; in the sandbox the node's files are on this machine."""
    found = list((work / "sandbox").rglob(f"{shard.node}/**/{shard.id}/disk.raw"))
    if len(found) != 1:
        raise ShardwrightError(f"the disk of {shard.id} on {shard.node} was found {len(found)} times")
    return found[0]


def cheaper_offer(plane: ControlPlane, info: SandboxInfo, show: Show) -> dict[str, JsonValue]:
    """A price falls at a provider that is not used; the next round moves there what saves more than the move costs.

    The round before replaces what was taken back: else the cheaper units would, and nothing had to move to them.
    """
    next(plane.rounds(1))
    provider, instance_type = _unused_offer(plane)
    SandboxClient(info).make_cheaper(
        MakeCheaper(instance_type=instance_type, factor=CHEAPER_BY, provider=provider, option=MarketOption.ON_DEMAND)
    )
    show.line(f"{provider} lowers the price of {instance_type} to {CHEAPER_BY:.0%}")
    record = next(plane.rounds(1))
    driven = [report for report in record.moves if report.request.cause is MoveCause.COST]
    done = [report for report in driven if report.phase is MovePhase.CLEANED and report.request.gate is not None]
    if not done:
        raise MoveFailed("no cost-driven move passed the gate", why=f"{len(driven)} were tried: {driven}")
    report = min(done, key=lambda one: _provider_of(plane, one.request.destination) != provider)
    gate = report.request.gate
    assert gate is not None
    show.result(_gate_table(report, gate))
    return {
        "provider": provider,
        "instance_type": instance_type,
        "moves": len(done),
        "shard": report.request.shard,
        "from": plane.store.shard_map.node(report.request.source).cell,
        "to": plane.store.shard_map.node(report.request.destination).cell,
        "downtime_ms": round(report.downtime_seconds * 1000, 1),
        "gate": gate.model_dump(mode="json"),
    }


def _provider_of(plane: ControlPlane, node: NodeId) -> str:
    return provider_of(plane.store.shard_map.node(node).cell)


def _unused_offer(plane: ControlPlane) -> tuple[str, str]:
    """The cheapest on-demand offer, seen by the last plan, of a provider without nodes."""
    plan = plane.store.plans.target()
    used = {
        provider_of(node.cell) for node in plane.store.shard_map.nodes(states=[NodeState.JOINED, NodeState.EXPECTED])
    }
    offers = [
        decision
        for decision in (plan.decisions if plan else ())
        if decision.verdict is Verdict.WHY_NOT
        and decision.offer.option is PurchaseOption.ON_DEMAND
        and decision.offer.provider not in used
        and decision.price_per_shard_hour is not None
        and decision.offer.resources.vcpus <= 2
    ]
    if not offers:
        raise ShardwrightError("every provider is in use, so no new one can become cheaper")
    best = min(offers, key=lambda decision: decision.offer.price.amount)
    return best.offer.provider, best.offer.instance_type


def _gate_table(report: MoveReport, gate: MoveGateReport) -> Table:
    rows = [*gate_rows(gate), ("left, so it passes", f"{(gate.saving - gate.cost).amount:+.5f}")]
    downtime = f"{report.downtime_seconds * 1000:.0f} ms"
    title = f"Move gate for {report.request.shard} ({gate.saving.currency}), downtime {downtime}"
    return table(title, ("", "amount"), rows, right=(1,))
