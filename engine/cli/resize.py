"""``shardwright resize``"""

import math
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli.asking import ask
from engine.cli.configure import ConfigFile
from engine.cli.console import Output, out, print_json, table
from engine.cli.shards import OutputOption
from engine.clock import SystemClock
from engine.errors import UsageError

if TYPE_CHECKING:
    from engine.model.order import Order, Resized


def register(app: typer.Typer) -> None:
    app.command("resize")(resize)


def resize(
    component: Annotated[str, typer.Argument(help="shard://NAMESPACE/WORKLOAD/COMPONENT[/N]")],
    vcpus: Annotated[float | None, typer.Option(min=0.01, help="So many vCPUs from now on.")] = None,
    memory_gib: Annotated[float | None, typer.Option(min=0.01, help="So much memory.")] = None,
    iops: Annotated[
        float | None, typer.Option("--iops", min=0, help="So many disk operations a second; 0: no limit.")
    ] = None,
    network_mbps: Annotated[float | None, typer.Option(min=0, help="So many Mbit/s each way; 0: no limit.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would change and which spares give way.")
    ] = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Ask for it and return.")] = False,
    config: ConfigFile = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Change what the running shard behind a component has; what is not named stays."""
    from engine.app.configured import load, open_store
    from engine.app.orders import new_order, preview_resize
    from engine.model.order import OrderKind, Size
    from engine.namespace.names import parse

    for option, value in (("--vcpus", vcpus), ("--memory-gib", memory_gib)):
        _require_size(option, value)
    for option, value in (("--iops", iops), ("--network-mbps", network_mbps)):
        _require_size(option, value, least=1)
    size = Size(vcpus=vcpus, memory_gib=memory_gib, storage_iops=iops, network_mbps=network_mbps)
    if size == Size():
        raise UsageError(
            "nothing is to change", why="no size was given",
            next_step=f"shardwright resize {component} --memory-gib 4, or --vcpus, --iops, --network-mbps",
        )  # fmt: skip
    order = new_order(OrderKind.RESIZE, SystemClock(), component=parse(component), size=size)
    with open_store(load(config)) as store:
        seen = preview_resize(store, order)
        if dry_run:
            _print(order, seen, output, done=False)
            return
        if ask(store, order, output, list, wait=not no_wait, look="shardwright shards") is None:
            return
        ended = store.orders.get(order.id)
    assert ended.resized is not None  # it has ended without a problem
    _print(order, ended.resized, output, done=True)


def _require_size(option: str, value: float | None, *, least: float = 0) -> None:
    """What the range of an option does not keep out. Raises UsageError."""
    if value is None or (math.isfinite(value) and (value == 0 or value >= least)):
        return
    words = f"a number; {least:g} or more, or 0 for no limit" if least else "a number"
    raise UsageError(f"{option} {value:g} is no size", why=f"it is {words}", next_step="shardwright resize --help")


def _print(order: "Order", resized: "Resized", output: Output, *, done: bool) -> None:
    if output is Output.JSON:
        print_json("resize", resized, order=order)
        return
    rows = [
        (words, f"{before:g}", f"{after:g}")
        for words, before, after in (
            ("vCPU", resized.before.vcpus, resized.after.vcpus),
            ("memory, GiB", resized.before.memory_gib, resized.after.memory_gib),
            ("IOPS (0: no limit)", resized.before.storage_iops, resized.after.storage_iops),
            ("Mbit/s (0: no limit)", resized.before.network_mbps, resized.after.network_mbps),
        )
    ]
    columns = (resized.shard, "had" if done else "has", "has" if done else "would have")
    out().print(table(str(order), columns, rows, right=(1, 2)))
    for spare in resized.displaced:
        out().print(f"the spare {spare} {'gave' if done else 'gives'} way")
