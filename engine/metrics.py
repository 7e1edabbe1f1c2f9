"""What operators watch, as Prometheus metrics. Plain functions that take values; labels stay few and bounded.

Gauges say how things stand, counters and histograms what has happened since the process started.
"""

from collections.abc import Iterable, Sequence

from prometheus_client import Counter, Gauge, Histogram

from engine.billing.reconciliation import Reconciliation
from engine.billing.report import CostReport
from engine.composition.membership import Standing
from engine.market.discovery import MarketView
from engine.model.capacity import CapacityTarget
from engine.model.ids import provider_of
from engine.model.market import ReclaimNotice
from engine.model.move import MoveReport
from engine.model.placement import ComponentName, Node, NodeState, Shard, ShardState
from engine.model.plan import Plan
from engine.retraining.base import Retraining
from providers.base import EventKind

OFFERS = Gauge("shardwright_offers", "Usable offers in the last discovery.", ["provider"])
OFFERS_REFUSED = Gauge("shardwright_offers_refused", "Offers refused in the last discovery.", ["provider"])
PROVIDER_FAILURES = Counter(
    "shardwright_provider_failures", "Discoveries that a provider did not answer usefully.", ["provider", "kind"]
)
ROUNDS = Counter("shardwright_rounds", "Rounds by how they ended: ok, or the error's name.", ["outcome"])
ROUND_DURATION = Histogram(
    "shardwright_round_duration_seconds",
    "From a round's start to its record.",
    buckets=(1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800),
)
LAST_ROUND = Gauge("shardwright_last_round_timestamp_seconds", "When the last successful round ended (Unix time).")
PLAN_GENERATION = Gauge("shardwright_plan_generation", "Generation of the plan in force.")
PLAN_COST = Gauge("shardwright_plan_cost_currency_units_per_hour", "Expected cost of the plan in force.", ["currency"])
PLAN_SOLVE = Histogram(
    "shardwright_plan_solve_seconds", "Time the solver took.", buckets=(0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30)
)
POOL_SHARDS = Gauge("shardwright_pool_shards", "Shards of a pool: current, desired, planned.", ["pool", "kind"])
POOL_SHORTFALL = Gauge("shardwright_pool_shortfall_probability", "Probability that the pool falls short.", ["pool"])
NODES = Gauge("shardwright_nodes", "Nodes that are not gone.", ["provider", "state"])
SHARDS = Gauge("shardwright_shards", "Shards by state.", ["state"])
REPLICAS = Gauge(
    "shardwright_replicas", "Replicas of a component, by whether its name leads to them.", ["component", "serves"]
)
RECLAIMS = Counter("shardwright_reclaim_notices", "Nodes that a provider took back.", ["provider"])
PROVIDER_EVENTS = Counter(
    "shardwright_provider_events", "Changes of its market that a provider told as they happened.", ["provider", "kind"]
)
MOVES = Counter("shardwright_moves", "Moves that ended.", ["cause", "phase"])
MOVE_DOWNTIME = Histogram(
    "shardwright_move_downtime_seconds",
    "How long a moved shard stood still.",
    ["cause"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5, 15, 60),
)
MOVE_DURATION = Histogram(
    "shardwright_move_duration_seconds", "From request to end.", ["cause"], buckets=(1, 2, 5, 10, 20, 30, 60, 120, 300)
)
MOVE_BYTES = Counter("shardwright_move_bytes", "Bytes copied by moves.", ["kind"])
RETRAININGS = Counter("shardwright_retrainings", "Retrainings that ended.", ["cause", "outcome"])
PROMOTED_AT = Gauge("shardwright_model_promoted_timestamp_seconds", "When a network was last promoted (Unix time).")
COST = Gauge("shardwright_cost_currency_units", "Billed cost in the ledger.", ["provider", "currency"])
INVOICE_DIFFERENCE = Gauge(
    "shardwright_invoice_difference_currency_units", "Rows less invoices; 0 when reconciled.", ["provider", "currency"]
)
INVOICES_OFF = Gauge("shardwright_invoices_not_reconciled", "Invoices whose rows do not add up to their total.")


def observe_round(*, seconds: float, ended_at: float, error: Exception | None = None) -> None:
    """One round: how long it took and when it ended (Unix time); ``error``: what stopped it."""
    ROUNDS.labels("ok" if error is None else type(error).__name__).inc()
    ROUND_DURATION.observe(seconds)
    if error is None:
        observe_last_round(ended_at)


def observe_last_round(ended_at: float) -> None:
    """When the last good round ended (Unix time), in this process or one before it."""
    LAST_ROUND.set(ended_at)


def observe_market(view: MarketView) -> None:
    """One discovery. A provider that failed has no offers, which is what its gauge says."""
    OFFERS.clear()
    OFFERS_REFUSED.clear()
    for failure in view.failures:
        OFFERS.labels(failure.provider).set(0)
        PROVIDER_FAILURES.labels(failure.provider, failure.kind).inc()
    for offer in view.offers:
        OFFERS.labels(offer.provider).inc()
    for rejection in view.rejections:
        OFFERS_REFUSED.labels(rejection.provider).inc()


def observe_targets(targets: Sequence[CapacityTarget]) -> None:
    for target in targets:
        POOL_SHARDS.labels(target.pool.id, "current").set(target.current)
        POOL_SHARDS.labels(target.pool.id, "desired").set(target.desired)


def observe_plan(plan: Plan) -> None:
    """Once per new plan."""
    PLAN_SOLVE.observe(plan.solve_seconds)
    observe_plan_in_force(plan)


def observe_plan_in_force(plan: Plan) -> None:
    """As it was made, in this process or one before it."""
    PLAN_GENERATION.set(plan.generation)
    PLAN_COST.labels(plan.expected_hourly_cost.currency).set(float(plan.expected_hourly_cost.amount))
    for outcome in plan.pools:
        POOL_SHARDS.labels(outcome.pool, "planned").set(outcome.planned)
        POOL_SHORTFALL.labels(outcome.pool).set(outcome.shortfall_probability)


def observe_fleet(nodes: Sequence[Node], shards: Sequence[Shard]) -> None:
    """How nodes and shards stand now."""
    NODES.clear()
    for node in nodes:
        if node.state is not NodeState.GONE:
            NODES.labels(provider_of(node.cell), node.state).inc()
    for state in ShardState:
        SHARDS.labels(state).set(sum(shard.state is state for shard in shards))


def observe_replicas(standings: Iterable[tuple[ComponentName, Standing]]) -> None:
    """Who serves under each name now."""
    REPLICAS.clear()
    for name, standing in standings:
        component = f"{name.namespace}/{name.workload}/{name.component}"
        for serves in (True, False):
            REPLICAS.labels(component, "yes" if serves else "no").inc(standing.serves is serves)


def observe_reclaim(notice: ReclaimNotice) -> None:
    RECLAIMS.labels(notice.provider).inc()


def observe_provider_event(provider: str, kind: EventKind) -> None:
    PROVIDER_EVENTS.labels(provider, kind).inc()


def observe_move(report: MoveReport) -> None:
    """A move that has ended, well or not."""
    cause = report.request.cause
    MOVES.labels(cause, report.phase).inc()
    MOVE_DOWNTIME.labels(cause).observe(report.downtime_seconds)
    MOVE_DURATION.labels(cause).observe((report.finished_at - report.started_at).total_seconds())
    MOVE_BYTES.labels("memory").inc(report.memory_bytes)
    MOVE_BYTES.labels("disk").inc(report.disk_bytes)


def observe_retraining(record: Retraining) -> None:
    RETRAININGS.labels(record.cause, "promoted" if record.promoted else "kept").inc()
    if record.promoted:
        PROMOTED_AT.set(record.ended_at.timestamp())


def observe_bills(report: CostReport, reconciliation: Reconciliation) -> None:
    """As the ledger is now. Gauges are floats: for watching, never for paying."""
    COST.clear()
    for line in report.lines:
        COST.labels(line.provider, line.billed.currency).inc(float(line.billed.amount))
    INVOICE_DIFFERENCE.clear()
    for verdict in reconciliation.verdicts:
        for part in (verdict.difference, *verdict.foreign):
            INVOICE_DIFFERENCE.labels(verdict.provider, part.currency).inc(float(part.amount))
    INVOICES_OFF.set(sum(not verdict.reconciled for verdict in reconciliation.verdicts))
