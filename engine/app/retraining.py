"""Retrainings, wired: the configuration's usage and terms, and the registry that its forecasts stand on."""

from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

from dbos import DBOS

from engine.app.demand import ForecastDemand, models_folder
from engine.clock import Clock
from engine.config import Configuration, RetrainingTable
from engine.durable import durable_workflows, unfinished
from engine.errors import ShardwrightError
from engine.events import Event, Observe
from engine.retraining.base import RetrainingReport
from engine.retraining.workflow import NAME, next_key, serve, start_retraining
from engine.store.state_lock import hold_file
from forecasting.demand import Histories
from forecasting.retraining import UsageRetraining

WORKFLOWS = "retraining.sqlite"
"""In the registry: workflows that were started by hand."""


def round_retraining(
    configuration: Configuration, demand: ForecastDemand, clock: Clock, models: Path | None = None
) -> UsageRetraining:
    """From what the rounds forecast from."""
    table = configuration.forecast
    return UsageRetraining(
        models or models_folder(configuration),
        read=demand.usage,
        last_seen=demand.last_seen,
        terms=table.retraining.terms(),
        horizon=table.horizon_steps,
        budget_seconds=table.retraining.budget_seconds,
        seed=table.seed,
        clock=clock,
    )


def file_retraining(
    models: Path, read: Callable[[], Histories], *, horizon: int, budget_seconds: float, seed: int, clock: Clock
) -> UsageRetraining:
    """From a usage file, without any configuration."""
    terms = RetrainingTable().terms()
    return UsageRetraining(
        models, read=read, terms=terms, horizon=horizon, budget_seconds=budget_seconds, seed=seed, clock=clock
    )


def retrain_by_hand(models: Path, retraining: UsageRetraining, observe: Observe, *, asked: bool) -> RetrainingReport:
    """One retraining, waited for; one that an earlier command left unfinished goes on first.

    Raises StateInUse while another such command runs on this registry, and what stopped the retraining.
    """
    models.mkdir(parents=True, exist_ok=True)
    serve(retraining, observe)
    with (
        hold_file(models / "retraining.lock", who="retraining"),
        durable_workflows("retraining", f"sqlite:///{(models / WORKFLOWS).resolve()}"),
        closing(retraining),
    ):
        for key in unfinished(NAME):
            observe(Event(step="retraining", text=f"{key} goes on where it was interrupted"))
            with suppress(ShardwrightError):
                DBOS.retrieve_workflow(key).get_result()
        return start_retraining(next_key("hand"), asked=asked).get_result()
