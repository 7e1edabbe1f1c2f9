"""``shardwright gateway add | list | remove``"""

from typing import Annotated

import typer

from engine.cli.configure import ConfigFile
from engine.cli.console import Output, err, out, plain, print_json, table

app = typer.Typer(help="Hosts outside the fleet on the overlay of one namespace.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="of the gateway: letters, digits, dots, dashes, underscores")]


@app.command("add")
def add(
    name: Name,
    namespace: Annotated[str, typer.Option(help="whose shards it reaches")],
    config: ConfigFile = None,
) -> None:
    """Enter a gateway and print the configuration file that it joins with: a secret. Again: a new one, the old void."""
    from engine.app.configured import load, open_store
    from engine.app.gateways import add_gateway
    from engine.clock import SystemClock

    configuration = load(config)
    with open_store(configuration) as store:
        print(add_gateway(configuration, store, name, namespace, SystemClock()))
    plain(err())("on the host, as root: keep this in a file of mode 0600, then python -m agent.gateway --config FILE")


@app.command("list")
def list_(
    config: ConfigFile = None, output: Annotated[Output, typer.Option(help="table or json")] = Output.TABLE
) -> None:
    """List the gateways with their addresses."""
    from engine.app.configured import load, open_store

    with open_store(load(config)) as store:
        found = store.overlay.gateways()
    if output is Output.JSON:
        print_json("gateways", found)
        return
    rows = [(one.name, one.namespace, one.address, "yes" if one.joined else "not yet") for one in found]
    out().print(table("Gateways", ("gateway", "namespace", "address", "joined"), rows))


@app.command("remove")
def remove(name: Name, config: ConfigFile = None) -> None:
    """Take a gateway off the overlay: no node takes a packet from it any more."""
    from engine.app.configured import load, open_store
    from engine.model.ids import NodeId

    with open_store(load(config)) as store:
        store.overlay.remove_gateway(NodeId(name))
    err().print(f"{name} is not on the overlay any more")
