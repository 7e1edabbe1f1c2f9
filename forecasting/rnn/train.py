"""Trains the network on many histories within a budget of seconds."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from math import cos, pi
from typing import Annotated

import numpy as np
import torch
from pydantic import Field

from engine.clock import Clock, SystemClock
from engine.errors import BadUsageData
from engine.model.value import Value
from forecasting.base import Array
from forecasting.rnn.adam import Adam
from forecasting.rnn.experts import Index
from forecasting.rnn.model import QuantileNetwork, pinball_loss
from forecasting.rnn.threads import one_thread
from forecasting.rnn.windows import Batch, Panel

FEWEST_WINDOWS = 48
"""Fewer training windows than this teach nothing: use a baseline."""
WORTH_A_GPU = 200_000
"""Windows, drawn again and again included."""
CHECKS = 10
"""How often the held-out loss is measured during a training."""


LATE = 0.5
"""Up to this share of the budget the clock has no say in what is learnt."""


class TrainingPlan(Value):
    """What a training does. With the same plan, histories and machine, the same network comes out, unless it takes
    more than half of its budget."""

    horizon: Annotated[int, Field(ge=1)]
    budget_seconds: Annotated[float, Field(gt=0)] = 30.0
    seed: int = 0
    steps: Annotated[int, Field(ge=1)] = 1200
    batch: Annotated[int, Field(ge=1)] = 96
    context: Annotated[int, Field(ge=1)] = 72
    hidden: Annotated[int, Field(ge=4)] = 64
    learning_rate: Annotated[float, Field(gt=0)] = 3e-3
    patience: Annotated[int, Field(ge=1)] = 3
    """So many checks of the held-out loss without a gain end it."""
    start: str = ""
    """Digest of the network that training goes on from; empty: a new one."""


class TrainingReport(Value):
    """``held_out_loss``: mean pinball loss in scaled units on windows never trained on."""

    steps: int
    seconds: float
    stopped_by: str
    windows: int
    held_out_loss: float
    first_held_out_loss: float


@dataclass(frozen=True)
class Split:
    """Window names (series, origin): training targets end before the held-out tail of each series begins."""

    training: tuple[Index, Index]
    held_out: tuple[Index, Index]


def split(panel: Panel) -> Split:
    """The last 15 % of each history (one to fourteen days, at most a third) is held out from training.

    Raises BadUsageData when too few windows are left to train on.
    """
    training: list[tuple[int, Index]] = []
    held_out: list[tuple[int, Index]] = []
    for series, (history, length) in enumerate(zip(panel.histories, panel.lengths, strict=True)):
        tail = int(np.clip(0.15 * length, panel.per_day + panel.horizon, 14 * panel.per_day))
        cut = int(length) - min(tail, int(length) // 3)
        measured = np.isfinite(history.values)
        ends = np.concatenate([[0], np.cumsum(measured)])
        first = min(max(panel.per_day // 4, 4), cut)
        origins = np.arange(first, cut - panel.horizon + 1)
        filled = ends[origins + panel.horizon] - ends[origins] >= max(1, panel.horizon // 2)
        training.append((series, origins[filled]))
        stride = max(1, min(panel.horizon, panel.per_day) // 4 + 1)
        later = np.arange(cut, int(length) - panel.horizon + 1, stride)
        held_out.append((series, later[ends[later + panel.horizon] > ends[later]]))
    result = Split(_named(training), _named(held_out))
    if len(result.training[0]) < FEWEST_WINDOWS or not len(result.held_out[0]):
        raise BadUsageData(
            "too little history to train on",
            why=f"{len(result.training[0])} training windows, at least {FEWEST_WINDOWS} are needed",
            next_step="give a longer history or a shorter horizon; the baselines need less",
        )
    return result


def _named(parts: Sequence[tuple[int, Index]]) -> tuple[Index, Index]:
    series = np.concatenate([np.full(len(origins), i, dtype=np.int64) for i, origins in parts])
    return series, np.concatenate([origins.astype(np.int64) for _, origins in parts])


@one_thread()
def train(
    panel: Panel,
    plan: TrainingPlan,
    windows: Split,
    *,
    clock: Clock | None = None,
    shares: Array | None = None,
    start: QuantileNetwork | None = None,
) -> tuple[QuantileNetwork, TrainingReport]:
    """Adam with cosine decay and averaged weights; the best average on the held-out windows is returned.

    ``shares`` (series,): how often each series is drawn, relative to the others; default: all alike. ``start``: a
    trained network to go on from (it is not changed).
    """
    clock = clock or SystemClock()
    started, budget = clock.now(), timedelta(seconds=plan.budget_seconds)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        network = QuantileNetwork(plan.hidden) if start is None else copy.deepcopy(start)
    network = network.to(device_for(plan))
    averaged, best = copy.deepcopy(network).eval(), copy.deepcopy(network).eval()
    optimizer = Adam(network.parameters(), weight_decay=1e-3)
    checked = _checked(windows.held_out, np.random.default_rng(plan.seed))
    first = lowest = held_out_loss(network, panel, checked)
    draws = _draws(windows.training, panel, plan, shares)
    done, stopped_by, next_check, stale = 0, "steps", 1, 0
    while done < plan.steps:
        spent = (clock.now() - started) / budget
        if spent >= 1:
            stopped_by = "budget"
            break
        progress = done / plan.steps if spent < LATE else max(done / plan.steps, spent)
        if progress >= next_check / CHECKS:
            next_check = int(progress * CHECKS) + 1
            before, lowest = lowest, _keep_better(averaged, best, panel, checked, lowest)
            stale = 0 if lowest < before else stale + 1
            if stale == plan.patience:
                stopped_by = "no gain"
                break
        _step(network, optimizer, next(draws), plan.learning_rate * (0.02 + 0.98 * (1 + cos(pi * progress)) / 2))
        done += 1
        _average(averaged, network, keep=min(0.98, done / (done + 10)))
    lowest = _keep_better(averaged, best, panel, checked, lowest)
    seconds = (clock.now() - started).total_seconds()
    return best.cpu(), TrainingReport(
        steps=done,
        seconds=seconds,
        stopped_by=stopped_by,
        windows=len(windows.training[0]),
        held_out_loss=lowest,
        first_held_out_loss=first,
    )


def _checked(held_out: tuple[Index, Index], rng: np.random.Generator) -> tuple[Index, Index]:
    """At most 768 held-out windows: enough to compare, quick to measure."""
    chosen = rng.permutation(len(held_out[0]))[:768]
    return held_out[0][chosen], held_out[1][chosen]


def _draws(
    windows: tuple[Index, Index], panel: Panel, plan: TrainingPlan, shares: Array | None = None
) -> Iterator[Batch]:
    """Every series is drawn by its share, however long it is."""
    rng = np.random.default_rng(plan.seed)
    series, origins = windows
    starts = np.searchsorted(series, np.arange(len(panel.histories) + 1))
    counts = np.diff(starts)
    usable = np.flatnonzero(counts)
    wanted = np.ones(len(usable)) if shares is None else shares[usable]
    while True:
        drawn = rng.choice(usable, plan.batch, p=wanted / wanted.sum())
        at = starts[drawn] + rng.integers(0, counts[drawn])
        yield panel.gather(drawn, origins[at])


def device_for(plan: TrainingPlan) -> torch.device:
    """A GPU, where there is one and the training is long enough to pay for starting it."""
    worth_it = plan.steps * plan.batch >= WORTH_A_GPU
    return torch.device("cuda" if worth_it and torch.cuda.is_available() else "cpu")


def _step(network: QuantileNetwork, optimizer: Adam, batch: Batch, rate: float) -> None:
    network.train()
    batch = batch.to(next(network.parameters()).device)
    loss = pinball_loss(network(batch), batch.target, batch.weight)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step(rate, longest_gradient=1.0)


@torch.no_grad()
def _average(averaged: QuantileNetwork, network: QuantileNetwork, keep: float) -> None:
    for mean, now in zip(averaged.parameters(), network.parameters(), strict=True):
        mean.lerp_(now, 1 - keep)


def _keep_better(
    averaged: QuantileNetwork, best: QuantileNetwork, panel: Panel, windows: tuple[Index, Index], lowest: float
) -> float:
    loss = held_out_loss(averaged, panel, windows)
    if loss < lowest:
        best.load_state_dict(averaged.state_dict())
        return loss
    return lowest


@one_thread()
@torch.no_grad()
def held_out_loss(network: QuantileNetwork, panel: Panel, windows: tuple[Index, Index]) -> float:
    """Mean scaled pinball loss over the named windows."""
    network.eval()
    batch = panel.gather(*windows).to(next(network.parameters()).device)
    return float(pinball_loss(network(batch), batch.target, batch.weight))
