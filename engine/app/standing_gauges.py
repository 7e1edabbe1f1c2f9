"""The gauges of the plan in force and the last round, before this process has made a round of its own."""

from contextlib import suppress

from pydantic import ValidationError

from engine import metrics
from engine.errors import ShardwrightError
from engine.round_record import RoundOutline
from engine.store.opened import Store


def tell_what_stands(store: Store) -> None:
    """As an earlier process left it. What cannot be read is for a round to tell: no gauge keeps one from starting."""
    with suppress(ShardwrightError):
        if (plan := store.plans.target()) is not None:
            metrics.observe_plan_in_force(plan)
    with suppress(ValidationError):
        for latest in store.records.latest(1):
            last = RoundOutline.model_validate_json(latest.document)
            metrics.observe_targets(last.targets)
            metrics.observe_last_round(last.finished_at.timestamp())
