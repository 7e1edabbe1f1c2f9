"""``shardwright sandbox``"""

from pathlib import Path
from typing import Annotated

import typer

from engine.cli.console import err, plain
from engine.cli.numbers import finite

app = typer.Typer(help="The embedded clouds on this machine, for trying things out.", no_args_is_help=True)

StateDirectory = Annotated[Path, typer.Option("--state", help="where the sandbox keeps its state")]
_DEFAULT = Path(".shardwright/sandbox")


@app.command("up")
def up(
    state: StateDirectory = _DEFAULT,
    seed: Annotated[int, typer.Option(help="of prices and their changes")] = 7,
    meter_speed: Annotated[float, typer.Option(callback=finite, min=0.001, help="metered hours per real hour")] = 1.0,
) -> None:
    """Start it and leave it running; writes a shardwright.toml that points at it."""
    from engine.app.embedded import sandbox_up

    configuration = sandbox_up(state, seed=seed, meter_speed=meter_speed, say=plain(err()))
    err().print(f"sandbox is up; next: shardwright run --config {configuration} --rounds 1")


@app.command("down")
def down(state: StateDirectory = _DEFAULT) -> None:
    """End it and everything it made. Already down = success."""
    from engine.app.embedded import sandbox_down

    sandbox_down(state)
    err().print("sandbox is down")
