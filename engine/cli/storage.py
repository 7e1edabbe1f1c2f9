"""``shardwright storage list | forget``"""

from typing import Annotated

import typer

from engine.cli.configure import ConfigFile
from engine.cli.console import Output, err, out, print_json, table
from engine.cli.shards import OutputOption

app = typer.Typer(help="Disks that replicas keep their data on, lent by storage shards.", no_args_is_help=True)


@app.command("list")
def list_(config: ConfigFile = None, output: OutputOption = Output.TABLE) -> None:
    """List which storage shard holds which replica's data, and who uses it."""
    from engine.app.configured import load, open_store

    with open_store(load(config)) as store:
        found = store.attachments.all()
        there = {shard.id: shard.node for shard in store.shard_map.search()}
    if output is Output.JSON:
        print_json("attachments", found)
        return
    rows = []
    for one in found:
        where = there.get(one.storage, "lost")
        rows.append((str(one.component), one.storage, where, one.shard or "-", one.node or "-", str(one.epoch)))
    columns = ("replica", "storage", "on node", "used by shard", "on node", "epoch")
    out().print(table("Storage", columns, rows, right=(5,)))


@app.command("forget")
def forget(
    name: Annotated[str, typer.Argument(help="shard://NAMESPACE/WORKLOAD/COMPONENT[/N]")], config: ConfigFile = None
) -> None:
    """Say that a replica's lost data will not come back: the next round gives it an empty disk."""
    from engine.app.configured import load, open_store
    from engine.errors import UsageError
    from engine.namespace.names import parse

    component = parse(name)
    with open_store(load(config)) as store:
        known = next((one for one in store.attachments.all() if one.component == component), None)
        if known is None:
            raise UsageError(f"{component} has no storage", next_step="shardwright storage list")
        if known.storage in {shard.id for shard in store.shard_map.search()}:
            raise UsageError(
                f"the storage of {component} is there",
                why=f"{known.storage} still holds its data; only what is lost can be forgotten",
                next_step="shardwright storage list",
            )
        store.attachments.forget(component)
    err().print(f"{component} gets an empty disk in the next round")
