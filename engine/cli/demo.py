"""``shardwright demo``"""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    app.command("demo")(demo)


def demo(
    usage: Annotated[Path | None, typer.Option(help="usage history, Parquet or CSV; default: a synthetic one")] = None,
    metric: Annotated[str | None, typer.Option(help="column of the usage history, where it has several")] = None,
    state: Annotated[Path, typer.Option("--state", help="working directory; demo.jsonl is written here")] = Path(
        ".shardwright"
    ),
    seed: Annotated[int, typer.Option(help="of the sandbox's prices")] = 7,
) -> None:
    """Show the main job in the sandbox: forecast, buy, reconcile, carve, move live, bill, clean up."""
    from engine.demo.scenario import run_demo

    run_demo(state, usage=usage, metric=metric, seed=seed)
