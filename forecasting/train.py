"""Trains the networks that ship: ``python -m forecasting.train --data ../shared/data``. See docs/how-to/forecast.md.

Trained on the series that ``traces.held_out`` lets through, without the last 20 % of their span, and on generated ones.
"""

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from engine.clock import SystemClock
from engine.errors import ShardwrightError
from forecasting.base import Array, History
from forecasting.pretrained import FINE_NAME, FOLDER, HOURLY_NAME
from forecasting.registry import ModelCard, ModelRegistry
from forecasting.rnn.train import TrainingPlan
from forecasting.rnn.trained import train_rnn
from forecasting.scale.engines import add_options, spread_over
from forecasting.scale.spread import IN_PROCESS, Spread, at_quarters, batches
from forecasting.traces import FINE, FIVE_MINUTES, HOUR, HOURLY, Trace, training_part
from forecasting.varied import varied_series

LEAST_VALUES = 200
RARE = 3.0
"""A series of a source with few series is drawn so many times as often."""
PRIME = ("cpu_cores", "memory_gib")


@dataclass(frozen=True)
class Recipe:
    """How one of the networks is made."""

    name: str
    freq: timedelta
    horizon: int
    traces: Sequence[Trace]
    varied: int
    varied_days: float
    steps: int


HOURLY_RECIPE = Recipe(HOURLY_NAME, HOUR, 24, HOURLY, varied=400, varied_days=70, steps=4200)
FINE_RECIPE = Recipe(FINE_NAME, FIVE_MINUTES, 24, FINE, varied=60, varied_days=45, steps=3000)


def training_set(
    recipe: Recipe, data: Path, left_out: frozenset[str], seed: int, spread: Spread = IN_PROCESS
) -> tuple[list[History], Array]:
    """The histories, and how often each is drawn: business VMs' cores and memory 1, their other metrics half, every
    other source three times, generated ones about half of all together with the rare."""
    traces = [trace for trace in recipe.traces if trace.source not in left_out]
    pieces: list[Trace | Sequence[int]] = [*traces, *batches(range(recipe.varied))]
    parts = list(spread.map(_prepared, (recipe, data, seed), pieces, what=f"preparing {recipe.name}"))
    shares: list[float] = []
    for trace, part in zip(traces, parts, strict=False):
        common = 1.0 if trace.metric in PRIME else 0.5
        shares += [common if trace.source == "bitbrains" else RARE] * len(part)
    weight = 0.5 * sum(shares) / recipe.varied
    return [history for part in parts for history in part], np.array(shares + [weight] * recipe.varied)


def _prepared(shared: tuple[Recipe, Path, int], piece: Trace | Sequence[int]) -> list[History]:
    """A piece of work: what may be trained on of a trace, or the generated series of the given numbers."""
    recipe, data, seed = shared
    if isinstance(piece, Trace):
        return [h for h in training_part(piece.histories(data, recipe.freq)) if _is_telling(h)]
    return [varied_series(i, seed=seed, days=recipe.varied_days, freq=recipe.freq) for i in piece]


def train(recipe: Recipe, data: Path, out: Path, *, budget: float, seed: int, left_out: frozenset[str]) -> ModelCard:
    """Train by the recipe and save as ``out/<name>``."""
    return fit(recipe, training_set(recipe, data, left_out, seed), out, budget=budget, seed=seed)


def fit(recipe: Recipe, prepared: tuple[list[History], Array], out: Path, *, budget: float, seed: int) -> ModelCard:
    """The same, of what ``training_set`` prepared."""
    histories, shares = prepared
    plan = TrainingPlan(horizon=recipe.horizon, budget_seconds=budget, seed=seed, steps=recipe.steps, patience=99)
    trained = train_rnn(histories, plan, shares=shares)
    general = replace(trained, calibration=replace(trained.calibration, spreads={}, together=0.0))
    return ModelRegistry(out).save(recipe.name, general, series=len(histories), now=SystemClock().now())


def _is_telling(history: History) -> bool:
    measured = history.values[np.isfinite(history.values)]
    return len(measured) >= LEAST_VALUES and bool(np.any(measured != measured[0]))


def main(arguments: Sequence[str] | None = None) -> int:
    given = _options().parse_args(arguments)
    try:
        _train_side_by_side(given)
    except ShardwrightError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return int(problem.exit_code)
    return 0


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m forecasting.train", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds traces/")
    parser.add_argument("--out", type=Path, default=FOLDER, help="where the networks go")
    parser.add_argument("--only", choices=[HOURLY_NAME, FINE_NAME], help="train only this one")
    parser.add_argument("--budget", type=float, default=900.0, help="most seconds per network")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--leave-out", nargs="*", default=[], metavar="SOURCE", help="sources to keep from training")
    add_options(parser)
    return parser


def _train_side_by_side(given: argparse.Namespace) -> None:
    recipes = [recipe for recipe in (HOURLY_RECIPE, FINE_RECIPE) if given.only in (None, recipe.name)]
    left_out = frozenset(given.leave_out)
    progress = at_quarters(lambda line: print(line, file=sys.stderr, flush=True))
    with spread_over(given.engine, given.workers, given.ray_address, progress) as spread:
        prepared = [training_set(recipe, given.data, left_out, given.seed, spread) for recipe in recipes]
    with ProcessPoolExecutor(len(recipes), mp_context=get_context("spawn")) as side_by_side:
        cards = [
            side_by_side.submit(fit, recipe, histories, given.out, budget=given.budget, seed=given.seed)
            for recipe, histories in zip(recipes, prepared, strict=True)
        ]
        for recipe, card in zip(recipes, (card.result() for card in cards), strict=True):
            report = card.report
            print(
                f"{recipe.name}: {report.steps} steps in {report.seconds:.0f} s on {card.series} series, "
                f"held-out loss {report.held_out_loss:.4f}",
                file=sys.stderr,
            )


if __name__ == "__main__":
    raise SystemExit(main())
