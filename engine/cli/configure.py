"""``shardwright config``"""

from pathlib import Path
from typing import Annotated, Any

import typer

from engine.cli.console import Output, err, out, print_json, table
from engine.errors import ConfigurationError

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
    from engine.app.configured import find_configuration, require_reachable
    from engine.config import load_configuration

    path = find_configuration(config)
    found = load_configuration(path)
    err().print(f"{path}: good; {len(found.providers)} providers, {len(found.cells())} cells, {len(found.pools)} pools")
    try:
        require_reachable(found)
    except ConfigurationError as problem:
        err().print(f"before shardwright run: {problem}")


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
        print_json("configuration", _as_shown(found.model_dump(mode="json")))
        return
    console = out()
    console.print(f"file: {path}")
    cells = [(cell.provider, cell.kind, cell.account, cell.region) for cell in found.cells()]
    console.print(table("Cells", ("provider", "kind", "account", "region"), cells))
    pools = [(pool.id, pool.shard_type, pool.risk_class, ", ".join(pool.providers) or "any") for pool in found.pools]
    console.print(table("Pools", ("pool", "shard type", "risk class", "providers"), pools))


def _as_shown(value: Any) -> Any:
    """URLs may hold a password, wherever they stand (a database's, a source's, a package's)."""
    from engine.config_secrets import without_passwords

    if isinstance(value, dict):
        return {key: _as_shown(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_as_shown(one) for one in value]
    return without_passwords(value) if isinstance(value, str) else value
