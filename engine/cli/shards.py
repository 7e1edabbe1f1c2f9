"""``shardwright resolve | nodes | shards | agent``"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli.configure import ConfigFile
from engine.cli.console import Output, out, print_json, table
from engine.cli.numbers import finite
from engine.errors import UsageError

if TYPE_CHECKING:
    from engine.model.placement import ShardState

if TYPE_CHECKING:
    from engine.api.view import ShardView

OutputOption = Annotated[Output, typer.Option(help="table or json")]


def register(app: typer.Typer) -> None:
    app.command("resolve")(resolve)
    app.command("nodes")(nodes)
    app.command("shards")(shards)
    app.command("agent")(agent)


def resolve(
    name: Annotated[str, typer.Argument(help="shard://NAMESPACE/WORKLOAD/COMPONENT[/N]")],
    config: ConfigFile = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Say where a component is now: its stable address, and the shard, node and provider behind it.

    Without a number: every replica behind the name, those that serve first.
    """
    from engine.app.configured import load, open_store, stored_view
    from engine.namespace.names import parse, parse_query

    configuration, query = load(config), parse_query(name)
    with open_store(configuration) as store:
        view = stored_view(configuration, store)
        if query.index is None:
            _show_replicas(name, view.replicas(query), output)
            return
        found = view.resolve(parse(name))
    if output is Output.JSON:
        print_json("shard", found)
        return
    rows = (
        ("component", str(found.component)),
        ("address", found.shard.address),
        ("shard", found.shard.id),
        ("node", found.node.id),
        ("cell", found.node.cell),
        ("zone", found.node.zone),
        ("epoch", str(found.shard.epoch)),
        ("serves", standing_of(found)),
    )
    out().print(table(name, ("", ""), rows))


def _show_replicas(name: str, found: "Sequence[ShardView]", output: Output) -> None:
    if output is Output.JSON:
        print_json("replicas", found)
        return
    rows = [
        (str(row.component), row.shard.address, standing_of(row), row.node.cell, row.node.id, row.shard.id)
        for row in found
    ]
    out().print(table(name, ("replica", "address", "serves", "cell", "node", "shard"), rows))


def standing_of(row: "ShardView") -> str:
    """In a word or a sentence whether the component's name leads to the shard."""
    standing = row.standing
    if standing is None:
        return "-"
    known = "" if standing.health.value == "unknown" else standing.health.value
    return ", ".join(part for part in ("yes" if standing.serves else "no", known, standing.reason) if part)


def nodes(config: ConfigFile = None, output: OutputOption = Output.TABLE) -> None:
    """List the nodes that are there or expected."""
    from engine.app.configured import load, open_store, stored_view

    configuration = load(config)
    with open_store(configuration) as store:
        found = stored_view(configuration, store).nodes()
    if output is Output.JSON:
        print_json("nodes", found)
        return
    rows = [
        (node.id, node.cell, node.instance_type, node.option.value, node.state.value, f"{node.hourly_price.amount:f}")
        for node in found
    ]
    columns = ("node", "cell", "instance type", "option", "state", "per hour")
    out().print(table("Nodes", columns, rows, right=(5,)))


def shards(
    shard_type: Annotated[str | None, typer.Option("--type", help="of this shard type only")] = None,
    provider: Annotated[str | None, typer.Option(help="at this provider only, by its configured name")] = None,
    region: Annotated[str | None, typer.Option(help="in this region only")] = None,
    state: Annotated[str | None, typer.Option(help="held, ready, bound, draining or released")] = None,
    vcpus: Annotated[float, typer.Option(callback=finite, min=0, help="at least so many")] = 0.0,
    memory_gib: Annotated[float, typer.Option(callback=finite, min=0, help="at least so much, as measured")] = 0.0,
    storage_iops: Annotated[float, typer.Option(callback=finite, min=0, help="at least so many, as measured")] = 0.0,
    network_mbps: Annotated[float, typer.Option(callback=finite, min=0, help="at least so many, as measured")] = 0.0,
    config: ConfigFile = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """List the shards, where they are and what is bound to them; with options those that match all of them."""
    from engine.app.configured import load, open_store, stored_view
    from engine.model.capacity import Resources
    from engine.model.placement import ShardQuery

    performance = Resources(vcpus=vcpus, memory_gib=memory_gib, storage_iops=storage_iops, network_mbps=network_mbps)
    query = ShardQuery(
        shard_type=shard_type, provider=provider, region=region, state=_state(state), at_least=performance
    )
    configuration = load(config)
    with open_store(configuration) as store:
        found = stored_view(configuration, store).shards(query)
    if output is Output.JSON:
        print_json("shards", found)
        return
    rows = [
        (
            row.shard.id,
            row.shard.shard_type,
            row.shard.state.value,
            str(row.component or "-"),
            row.node.cell,
            row.node.id,
            row.shard.address,
            str(row.shard.epoch),
            standing_of(row),
        )
        for row in found
    ]
    columns = ("shard", "type", "state", "component", "cell", "node", "address", "epoch", "serves")
    out().print(table("Shards", columns, rows, right=(7,)))


def _state(text: str | None) -> "ShardState | None":
    from engine.model.placement import ShardState

    if text is None:
        return None
    try:
        return ShardState(text)
    except ValueError:
        raise UsageError(
            f"{text!r} is no state of a shard", why=f"there are {', '.join(ShardState)}",
            next_step="shardwright shards --state bound",
        ) from None  # fmt: skip


def agent(
    agent_config: Annotated[Path, typer.Option("--agent-config", help="Written by the node's user data.")],
) -> None:
    """Run the node agent (what a node's user data starts)."""
    from engine.app.configured import run_agent

    raise typer.Exit(run_agent(agent_config))
