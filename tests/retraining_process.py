"""Retrains by hand on three generated series, and kills itself at a given point; run again, it finishes what it began.

python tests/retraining_process.py FOLDER [in:STEP | after:STEP]

``in:train`` is the middle of the training; ``after:STEP``: the step has acted, and its end is not recorded yet.
Prints a line for each step that is begun, and the last the report as JSON.
"""

import os
import signal
import sys
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from engine.app.retraining import retrain_by_hand
from engine.clock import SystemClock
from engine.events import unseen
from engine.retraining.decision import RetrainingTerms
from forecasting.base import History
from forecasting.demand import Histories
from forecasting.retraining import UsageRetraining
from forecasting.synthetic import synthetic_fleet

STEPS_BEFORE_DEATH = 20


class Dying(SystemClock):
    """Counts how often the training looked at it."""

    armed = False
    looks = 0

    def now(self) -> datetime:
        self.looks += self.armed
        if self.looks > STEPS_BEFORE_DEATH:
            die()
        return super().now()


class Told:
    """Tells the begin of each step, and dies after one."""

    def __init__(self, steps: UsageRetraining, clock: Dying, point: str) -> None:
        self._steps, self._clock, self._point = steps, clock, point

    def __getattr__(self, name: str) -> Any:
        act = getattr(self._steps, name)

        def acted(*arguments: object) -> object:
            print(name, flush=True)
            self._clock.armed = self._point == f"in:{name}"
            result = act(*arguments)
            if self._point == f"after:{name}":
                die()
            return result

        return acted


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main(folder: Path, point: str) -> None:
    fleet = synthetic_fleet(3, seed=5, days=28)
    histories = tuple(History(h.series_id, h.start, h.freq, h.values) for h in fleet)
    clock = Dying()
    retraining = UsageRetraining(
        folder, read=lambda: Histories(histories, "cpu_cores"), terms=RetrainingTerms(), horizon=12,
        budget_seconds=600, seed=1, clock=clock,
    )  # fmt: skip
    told = cast(UsageRetraining, Told(retraining, clock, point))
    print(retrain_by_hand(folder, told, unseen, asked=False).model_dump_json(), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "")
