"""What the demo tells of each stage: facts for the record, tables and sentences for the screen."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from engine.api.view import ShardView
from engine.app.configured import fetch_bills, stored_view
from engine.billing.focus import write_focus
from engine.cli.bills import bill_tables
from engine.cli.console import table
from engine.cli.market import plan_tables
from engine.config import Configuration
from engine.control_plane import ControlPlane
from engine.demo.show import Show
from engine.demo.stages import Stage
from engine.demo.timeline import Timeline
from engine.errors import ProviderError, ShardwrightError
from engine.events import Event
from engine.model.ids import provider_of
from engine.model.market import PurchaseOption
from engine.model.money import Money
from engine.model.placement import ShardState
from engine.namespace.names import NameQuery
from engine.round_record import RoundRecord
from engine.store.opened import Store
from stacks.base import CellOutcome


def sandbox_event(line: str) -> Event:
    return Event(step="sandbox", text=line)


def tell_forecast(timeline: Timeline, show: Show) -> None:
    pools: list[JsonValue] = [event.facts for event in timeline.events if event.step == "forecast" and event.facts]
    for facts in (event.facts for event in timeline.events if event.step == "forecast" and event.facts):
        source = "synthetic usage" if facts["synthetic"] else f"series {facts['series_id']}"
        show.result(f"{facts['pool']} ({source}, {facts['forecaster']}): {facts['sentence']}")
        show.result(f"{facts['pool']} (seasonal naive): {facts['naive_sentence']}")
    timeline.facts(Stage.FORECAST, pools=pools)


def tell_plan(record: RoundRecord, timeline: Timeline, show: Show) -> None:
    plan = record.plan
    bought = [node for cell in plan.cells for node in cell.nodes if node.quote is not None]
    strategies = sorted({node.quote.strategy for node in bought if node.quote is not None})
    for part in plan_tables(plan):
        show.result(part)
    posted = {"fixed_price", "rfq"} & set(strategies)  # a posted price, taken as it is or talked down
    missing = {"spot", "auction", *([] if posted else ["fixed_price"])} - set(strategies)
    if missing:
        raise ShardwrightError(f"the plan bought nothing by {', '.join(sorted(missing))}", why=f"only {strategies}")
    timeline.facts(
        Stage.PLAN,
        offers_seen=record.offers_seen,
        quotes=len(record.quotes),
        bought=[_purchase(node.node.id, node.quote) for node in bought],
        strategies=[*strategies],
        expected_hourly_cost=str(plan.expected_hourly_cost),
        cost_quantiles={f"{q:g}": str(cost) for q, cost in plan.cost_quantiles},
        pools=[pool.model_dump(mode="json") for pool in plan.pools],
        why_not=sum(not decision.units for decision in plan.decisions),
        solver=plan.solver,
        gap=plan.gap,
    )


def _purchase(node: str, quote: Any) -> JsonValue:
    offer = quote.offer
    return {
        "node": node,
        "provider": offer.provider,
        "region": offer.region,
        "instance_type": offer.instance_type,
        "option": offer.option.value,
        "strategy": quote.strategy,
        "price": str(quote.unit_price),
        "ceiling": str(quote.price_ceiling),
    }


def tell_reconcile(first: RoundRecord, second: RoundRecord, timeline: Timeline) -> None:
    timeline.facts(
        Stage.RECONCILE,
        cells=[_outcome(outcome) for outcome in first.outcomes],
        second_round=[_outcome(outcome) for outcome in second.outcomes],
        second_round_changed=second.changed,
        holds=_fact(timeline, "hold", "holds"),
        advisory_findings=_fact(timeline, "gate", "advisory"),
    )


def _outcome(outcome: CellOutcome) -> JsonValue:
    return {
        "cell": outcome.cell.id,
        "seconds": round(outcome.seconds, 2),
        **outcome.changes.model_dump(),
    }


def _fact(timeline: Timeline, step: str, key: str) -> JsonValue:
    return next((event.facts[key] for event in timeline.events if event.step == step and key in event.facts), None)


def tell_shards(plane: ControlPlane, configuration: Configuration, timeline: Timeline, show: Show) -> None:
    view = stored_view(configuration, plane.store)
    shards = view.shards()
    rows = [
        (str(row.component), row.shard.address, row.shard.id, row.node.cell, str(row.shard.epoch))
        for row in shards
        if row.component is not None
    ]
    columns = ("component", "address", "shard", "cell", "epoch")
    show.result(table("Where every component is (shardwright resolve)", columns, rows, right=(4,)))
    served = _served(shards)
    for name, providers in sorted(served.items()):
        count = sum(providers.values())
        show.result(f"{name} is one name for {count} shard{'s' if count > 1 else ''} of {', '.join(sorted(providers))}")
    timeline.facts(
        Stage.SHARDS,
        shards=len(shards),
        bound=sum(row.shard.state is ShardState.BOUND for row in shards),
        boot_seconds=[
            event.facts.get("boot_seconds") for event in timeline.events if event.step == "carve" and event.facts
        ],
        served={name: dict(providers) for name, providers in served.items()},
        resolved={str(row.component): f"{row.shard.address} on {row.node.id}" for row in shards if row.component},
        spot_nodes=sum(node.option is PurchaseOption.SPOT for node in view.nodes()),
    )


def _served(shards: Iterable[ShardView]) -> dict[str, Counter[str]]:
    """Of each name without a number: how many of the shards that answer to it each provider has."""
    found: dict[str, Counter[str]] = {}
    for row in shards:
        if (one := row.component) is not None and (row.standing is None or row.standing.serves):
            name = str(NameQuery(namespace=one.namespace, workload=one.workload, component=one.component))
            found.setdefault(name, Counter())[provider_of(row.node.cell)] += 1
    return found


def tell_bills(configuration: Configuration, store: Store, folder: Path, timeline: Timeline, show: Show) -> None:
    """Raises BillDoesNotReconcile, or ProviderError when a provider delivered no bill."""
    fetched = fetch_bills(configuration, store, start=None, end=None)
    if fetched.failures:
        raise ProviderError("; ".join(f"{provider}: {why}" for provider, why in fetched.failures))
    view = stored_view(configuration, store)
    bills = view.bills()
    bills.reconciliation.require()
    for part in bill_tables(bills):
        show.result(part)
    files = [folder / "demo-bill.focus.csv", folder / "demo-bill.focus.parquet"]
    charges = max(write_focus(view.charges(), file).rows for file in files)
    invoiced, ledger = bills.reconciliation.invoiced, bills.report.totals
    if ledger != invoiced:
        raise ShardwrightError(f"the ledger holds {_listed(ledger)}, the invoices ask for {_listed(invoiced)}")
    total = _listed(each.to_minor_units() for each in ledger)
    show.result(f"one bill: {total} in {charges} charges = the sum of the invoices, to the cent")
    timeline.facts(
        Stage.BILLS,
        charges=charges,
        total=total,
        invoices={verdict.provider: str(verdict.invoice.total) for verdict in bills.reconciliation.verdicts},
        reconciled=bills.reconciliation.reconciled,
        by_workload={f"{line.provider} {line.workload}": str(line.billed.amount) for line in bills.report.lines},
        files=[str(file) for file in files],
    )


def _listed(amounts: Iterable[Money]) -> str:
    """One per currency."""
    return ", ".join(map(str, amounts))
