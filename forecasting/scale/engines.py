"""``--engine local | ray``: which spread the options ask for."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

from engine.errors import UsageError
from forecasting.scale.spread import InProcess, Progress, Spread, untold


class Engine(StrEnum):
    LOCAL = "local"
    RAY = "ray"


@contextmanager
def spread_over(
    engine: Engine, workers: int | None = None, ray_address: str | None = None, progress: Progress = untold
) -> Iterator[Spread]:
    """``workers``: of a cluster that starts here and ends with the block (default: one per CPU); ``ray_address``:
    host:port of a running cluster instead.

    Raises UsageError for options that do not go together, MissingPart without Ray, ScaleOutFailed when the cluster
    does not come up.
    """
    if engine is Engine.LOCAL:
        _require_no("--workers", workers)
        _require_no("--ray-address", ray_address)
        yield InProcess(progress)
        return
    if workers is not None and ray_address is not None:
        raise UsageError(
            "--workers and --ray-address do not go together",
            why="a running cluster has the workers that it has",
            next_step="give one of them",
        )
    if workers is not None and workers < 1:
        raise UsageError("--workers must be at least one worker", why=f"it is {workers}", next_step="give --workers 2")
    from forecasting.scale.ray_cluster import joined, started

    with started(workers, progress) if ray_address is None else joined(ray_address, progress) as spread:
        yield spread


def _require_no(option: str, value: object) -> None:
    if value is not None:
        raise UsageError(
            f"{option} needs --engine ray", why="--engine local works in this process", next_step="add --engine ray"
        )


def add_options(parser: argparse.ArgumentParser) -> None:
    """The same options for a command that is not part of ``shardwright``."""
    parser.add_argument("--engine", type=Engine, choices=list(Engine), default=Engine.LOCAL, help="who does the pieces")
    parser.add_argument("--workers", type=int, help="workers of a Ray cluster on this machine; default: one per CPU")
    parser.add_argument("--ray-address", metavar="HOST:PORT", help="join this running Ray cluster instead")
