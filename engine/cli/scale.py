"""The options of every command that spreads its work over a cluster."""

from typing import Annotated

import typer

from forecasting.scale.engines import Engine

EngineChoice = Annotated[Engine, typer.Option("--engine", help="Work in this process, or spread over Ray workers.")]
Workers = Annotated[
    int | None, typer.Option(min=1, max=1024, help="Ray workers on this machine. Default: one per CPU.")
]
RayAddress = Annotated[str | None, typer.Option(help="HOST:PORT of a running Ray cluster to join instead.")]
