"""``shardwright run``"""

from pathlib import Path
from typing import Annotated

import typer

from engine.cli.console import Output, err, out, plain, print_json
from engine.errors import ExitCode

OwnConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="Configuration file; default: shardwright.toml here, else a sandbox that ends with the command.",
        envvar="SHARDWRIGHT_CONFIG",
    ),
]


def register(app: typer.Typer) -> None:
    app.command("run")(run)


def run(
    config: OwnConfigFile = None,
    rounds: Annotated[int, typer.Option(min=1, help="how many rounds")] = 1,
    usage: Annotated[Path | None, typer.Option(help="usage history, Parquet or CSV; replaces the file's")] = None,
    metric: Annotated[str | None, typer.Option(help="column of the usage history, where it has several")] = None,
    every: Annotated[float, typer.Option(min=0, help="seconds between rounds")] = 0.0,
    serve: Annotated[
        bool, typer.Option("--serve", help="stay up after the rounds: web page, agents, evacuations")
    ] = False,
    output: Annotated[Output, typer.Option(help="table or json")] = Output.TABLE,
) -> None:
    """Run rounds: forecast, buy ahead, reconcile, carve, bind.

    Without a configuration file the embedded sandbox is started, and ends with the command; one that is up already is
    used with --config .shardwright/sandbox/shardwright.toml.
    """
    from engine.app.embedded import run_rounds
    from engine.cli.market import plan_tables

    console = err()
    records = []
    for record in run_rounds(
        config, rounds=rounds, usage=usage, metric=metric, every_seconds=every, serve=serve, say=plain(console)
    ):
        records.append(record)
        if output is Output.TABLE:
            for part in plan_tables(record.plan):
                out().print(part)
            changes = [
                f"{outcome.cell.id}: +{outcome.changes.create} ~{outcome.changes.update} -{outcome.changes.delete}"
                for outcome in record.outcomes
                if not outcome.changes.none
            ]
            out().print(f"round {record.id}: {'; '.join(changes) or 'nothing to do'}", markup=False)
    if output is Output.JSON:
        print_json("rounds", records)
    if any(record.failures for record in records):
        raise typer.Exit(ExitCode.PROVIDER)
