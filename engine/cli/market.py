"""``shardwright offers | plan``"""

from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli.configure import ConfigFile
from engine.cli.console import Output, err, named, out, plain, print_json, table
from engine.cli.numbers import finite
from engine.collection import collection_paused

if TYPE_CHECKING:
    from rich.table import Table

    from engine.model.market import Offer
    from engine.model.plan import OfferDecision, OfferRejection, Plan

OutputOption = Annotated[Output, typer.Option(help="table or json")]
SHOWN_DECISIONS = 40
SHOWN_REFUSALS = 10
_REFUSED = ("", "provider", "offer", "why not")


def register(app: typer.Typer) -> None:
    app.command("offers")(collection_paused()(offers))
    app.command("plan")(plan)


def offers(
    config: ConfigFile = None,
    vcpus: Annotated[float, typer.Option(callback=finite, min=0, help="least vCPUs of one unit")] = 1.0,
    memory_gib: Annotated[float, typer.Option(callback=finite, min=0, help="least memory of one unit, in GiB")] = 0.0,
    limit: Annotated[int, typer.Option(min=1, help="rows of the table; JSON has them all")] = 40,
    output: OutputOption = Output.TABLE,
) -> None:
    """Ask every provider what it sells now: what can be used, cheapest per vCPU first, and what cannot, and why.

    A provider that fails is named on stderr; only when none answers is that an error (exit 4, or 3 for credentials).
    """
    from engine.app.configured import discover_offers, load
    from engine.market.absence import require_a_market

    configuration = load(config)
    view = discover_offers(configuration, vcpus=vcpus, memory_gib=memory_gib)
    say = plain(err())
    for failure in view.failures:
        say(named(failure.provider, failure.reason))
    require_a_market(view, len(configuration.providers))
    refused = {one.offer for one in view.rejections}
    usable = [offer for offer in view.offers if offer.id not in refused]
    ranked = sorted(usable, key=_per_vcpu)
    if output is Output.JSON:
        print_json("offers", ranked, refused=view.rejections, failures=view.failures)
        return
    rows: list[tuple[str, ...]] = [
        (
            "✔",
            offer.provider,
            offer.region,
            offer.zone,
            offer.instance_type,
            offer.option.value,
            f"{offer.resources.vcpus:g}",
            f"{offer.resources.memory_gib:g}",
            f"{offer.price.amount:.5f} {offer.price.currency}",
        )
        for offer in ranked[:limit]
    ]
    columns: tuple[str, ...] = ("", "provider", "region", "zone", "instance type", "option", "vCPU", "GiB", "per hour")
    learned = [_learned(offer) for offer in ranked[:limit]]
    if any(learned):
        columns = (*columns, "learned")
        rows = [(*row, known) for row, known in zip(rows, learned, strict=True)]
    out().print(table(f"{len(ranked)} offers", columns, rows, right=(6, 7, 8)))
    if view.rejections:
        out().print(refused_table(view.rejections, limit))


def _per_vcpu(offer: "Offer") -> Decimal:
    """Its price; what has no vCPU comes last."""
    vcpus = Decimal(str(offer.resources.vcpus))
    return offer.price.amount / vcpus if vcpus else Decimal("Infinity")


def _learned(offer: "Offer") -> str:
    """What earlier rounds taught: how deep it is, how often nodes there were taken back."""
    own = offer.reliability.own
    return "; ".join(str(one) for one in (offer.belief, own if own is not None and own.reclaims else None) if one)


def refused_table(rejections: "Sequence[OfferRejection]", limit: int) -> "Table":
    """Offers that cannot be used, each with its named reason; as many as possible of different kinds."""
    seen: dict[tuple[str, str], int] = {}
    turns = []
    for position, one in enumerate(rejections):
        kind = (one.provider, one.reason.partition(":")[0])
        seen[kind] = seen.get(kind, 0) + 1
        turns.append((seen[kind], position))
    shown = [rejections[position] for _, position in sorted(turns)[:limit]]
    rows = [("✘", one.provider, one.offer, one.reason) for one in shown]
    title = f"{len(rejections)} offers refused"
    return table(title if len(shown) == len(rejections) else f"{title}, {len(shown)} shown", _REFUSED, rows)


def plan(config: ConfigFile = None, output: OutputOption = Output.TABLE) -> None:
    """Show the plan in force: what was chosen, what was not and why, what it costs and risks."""
    from engine.app.configured import load, open_store, stored_view

    configuration = load(config)
    with open_store(configuration) as store:
        found = stored_view(configuration, store).plan()
    if output is Output.JSON:
        print_json("plan", found)
    elif found is None:
        err().print("no plan yet; next: shardwright run --rounds 1")
    else:
        for part in plan_tables(found):
            out().print(part)
        for divided in found.parts:
            out().print(f"{divided.pool}: {divided.reason}", soft_wrap=True)


def plan_tables(found: "Plan") -> "tuple[Table, ...]":
    """(pools, offers) and, where some could not even be weighed, the refused ones.

    Of the offers that were not chosen, the best per provider, option and reason.
    """
    from forecasting.durations import roughly

    pools = [
        (
            pool.pool,
            str(pool.desired),
            str(pool.planned),
            f"{pool.quantile_met:.1%}",
            f"{pool.shortfall_probability:.1%}",
            f"{pool.expected_shortfall_share:.2%}",
            roughly(pool.history_age) if pool.history_age is not None else "-",
        )
        for pool in found.pools
    ]
    quantiles = ", ".join(f"q{q:g} {cost.amount:.4f}" for q, cost in found.cost_quantiles)
    title = (
        f"Plan {found.id} by {found.solver}, gap {found.gap:.2%}, {found.solve_seconds:.2f} s; "
        f"{found.expected_hourly_cost.amount:.4f} {found.expected_hourly_cost.currency} per hour; "
        f"horizon cost {quantiles}"
    )
    columns = ("pool", "wanted", "planned", "quantile met", "P(short)", "expected shortfall", "history is old")
    pool_table = table(title, columns, pools, right=(1, 2, 3, 4, 5, 6))
    shown = _telling(found)
    lines = [
        (
            "✔" if row.units else "",
            row.offer.provider,
            row.offer.region,
            row.offer.instance_type,
            row.offer.option.value,
            str(row.units or ""),
            f"{row.price_per_shard_hour.amount:.5f}" if row.price_per_shard_hour else "-",
            row.reason,
        )
        for row in shown
    ]
    headings = ("", "provider", "region", "instance type", "option", "units", "per shard-hour", "why, or why not")
    title = f"Offers: {len(shown)} of {len(found.decisions)}"
    offer_table = table(title, headings, lines, right=(5, 6))
    weighed = {row.offer.id for row in found.decisions}
    refused = [one for one in found.rejections if one.offer not in weighed]
    if not refused:
        return pool_table, offer_table
    return pool_table, offer_table, refused_table(refused, SHOWN_REFUSALS)


def _telling(found: "Plan") -> "list[OfferDecision]":
    """Everything chosen, then the cheapest offer of each provider, purchase option and reason for not choosing it."""
    chosen = [row for row in found.decisions if row.units]
    best: dict[tuple[str, str, str], OfferDecision] = {}
    for row in found.decisions:
        key = (row.offer.provider, row.offer.option.value, row.reason.partition(":")[0])
        if not row.units and (key not in best or _per_shard(row) < _per_shard(best[key])):
            best[key] = row
    others = sorted(best.values(), key=_per_shard)
    return [*chosen, *others[: max(0, SHOWN_DECISIONS - len(chosen))]]


def _per_shard(row: "OfferDecision") -> tuple[bool, Decimal]:
    price = row.price_per_shard_hour
    return price is None, price.amount if price is not None else row.offer.price.amount
