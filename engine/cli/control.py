"""``shardwright run``"""

from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli.console import Output, err, json_list, out, plain
from engine.cli.numbers import finite
from engine.errors import AuthenticationFailed, ShardwrightError, UsageError

if TYPE_CHECKING:
    from engine.round_record import RoundRecord

OwnConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="Configuration file; default: shardwright.toml here, else that of a sandbox that is up, else one of a "
        "sandbox that ends with the command.",
        envvar="SHARDWRIGHT_CONFIG",
    ),
]


def register(app: typer.Typer) -> None:
    app.command("run")(run)


def run(
    config: OwnConfigFile = None,
    rounds: Annotated[int, typer.Option(min=0, help="how many rounds; 0 only with --serve")] = 1,
    usage: Annotated[Path | None, typer.Option(help="usage history, Parquet or CSV; replaces the file's")] = None,
    metric: Annotated[str | None, typer.Option(help="column of the usage history, where it has several")] = None,
    every: Annotated[float, typer.Option(callback=finite, min=0, help="seconds between rounds")] = 0.0,
    serve: Annotated[
        bool,
        typer.Option("--serve", help="stay up after the rounds: web page, agents, evacuations, orders, names over DNS"),
    ] = False,
    output: Annotated[Output, typer.Option(help="table or json")] = Output.TABLE,
) -> None:
    """Run rounds: forecast, buy ahead, reconcile, carve, bind.

    Without a configuration file and a sandbox that is up, one is started, and ends with the command.
    """
    if rounds == 0 and not serve:
        raise UsageError(
            "no rounds and no --serve: there is nothing to do", next_step="shardwright run --serve --rounds 0"
        )
    from engine.app.embedded import run_rounds

    last: RoundRecord | None = None  # one that serves makes rounds for weeks: no other is kept
    made = run_rounds(
        config, rounds=rounds, usage=usage, metric=metric, every_seconds=every, serve=serve, say=plain(err())
    )
    with _telling(output) as tell, closing(made):  # whatever stops us, everything is ended before the command is
        for last in made:
            tell(last)
    if last is not None:
        _require_all_cells(last)
        _require_sign_in(last)
        _require_shards(last)


def _telling(output: Output) -> "AbstractContextManager[Callable[[RoundRecord], None]]":
    return json_list("rounds") if output is Output.JSON else nullcontext(_print_round)


def _print_round(record: "RoundRecord") -> None:
    from engine.cli.market import plan_tables

    for part in plan_tables(record.plan):
        out().print(part)
    out().print(f"round {record.id}: {_changes(record) or 'nothing to do'}")


def _changes(record: "RoundRecord") -> str:
    return "; ".join(
        f"{outcome.cell.id}: +{outcome.changes.create} ~{outcome.changes.update} -{outcome.changes.delete}"
        for outcome in record.outcomes
        if not outcome.changes.none
    )


def _require_sign_in(record: "RoundRecord") -> None:
    """A provider that is down comes back by itself; one that refuses our credentials does not."""
    refused = [one for one in record.absent if one.kind == AuthenticationFailed.__name__]
    if refused:
        raise AuthenticationFailed(
            f"round {record.id} is done, but without {', '.join(one.provider for one in refused)}",
            why="; ".join(one.reason for one in refused),
            next_step="put the credentials right, then shardwright offers",
        )


def _require_shards(record: "RoundRecord") -> None:
    if record.problems:
        raise ShardwrightError(
            f"round {record.id} is done, but shards that are paid for are not there",
            why="; ".join(record.problems),
            next_step="shardwright run --rounds 1, once that is mended: it carves what is missing",
        )


def _require_all_cells(record: "RoundRecord") -> None:
    """Of the last round: what failed in an earlier one and was put right since is done."""
    if not record.failures:
        return
    cells = sorted({failure.cell.id for failure in record.failures})
    kind = type(record.failures[0].error())
    raise kind(
        f"round {record.id} is done but for {', '.join(cells)}",
        why="; ".join(dict.fromkeys(failure.why or failure.what for failure in record.failures)),
        next_step="shardwright run --rounds 1, once that is mended: it goes on from what is there",
    )
