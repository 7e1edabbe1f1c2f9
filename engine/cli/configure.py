"""``shardwright config``"""

from pathlib import Path
from typing import Annotated

import typer

from engine.cli.console import Output, err, out, print_json, table

app = typer.Typer(help="Check and show the configuration.", no_args_is_help=True)

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="Configuration file; default: shardwright.toml here, else the running sandbox's.",
        envvar="SHARDWRIGHT_CONFIG",
    ),
]


@app.command("check")
def check(config: ConfigFile = None) -> None:
    """Report every problem of the file at once (exit 2), or say that it is good."""
    from engine.app.configured import find_configuration
    from engine.config import load_configuration

    path = find_configuration(config)
    found = load_configuration(path)
    err().print(f"{path}: good; {len(found.providers)} providers, {len(found.cells())} cells, {len(found.pools)} pools")


@app.command("show")
def show(
    config: ConfigFile = None, output: Annotated[Output, typer.Option(help="table or json")] = Output.TABLE
) -> None:
    """Show the configuration as it is understood; secrets show as where they are read from."""
    from engine.app.configured import find_configuration
    from engine.config import load_configuration

    path = find_configuration(config)
    found = load_configuration(path)
    if output is Output.JSON:
        print_json("configuration", found)
        return
    console = out()
    console.print(f"file: {path}", markup=False)
    cells = [(cell.provider, cell.kind, cell.account, cell.region) for cell in found.cells()]
    console.print(table("Cells", ("provider", "kind", "account", "region"), cells))
    pools = [(pool.id, pool.shard_type, pool.risk_class, ", ".join(pool.providers) or "any") for pool in found.pools]
    console.print(table("Pools", ("pool", "shard type", "risk class", "providers"), pools))
