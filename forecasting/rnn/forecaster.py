"""The network behind the one-series face that every forecaster has."""

import numpy as np

from engine.clock import Clock
from engine.errors import BadUsageData
from forecasting.base import History
from forecasting.rnn.train import TrainingPlan
from forecasting.rnn.trained import TrainedRnn, train_rnn
from forecasting.sample_forecast import SampleForecast


class RnnForecaster:
    """Uses ``trained`` when it is given, else trains on the one history by ``plan``.

    ``fit`` raises BadUsageData when the history is too short to train on; ``predict`` raises UsageError for a horizon
    beyond the plan's. For many series use ``train_rnn`` and ``TrainedRnn.forecast``, which share one network.
    """

    name = "rnn"

    def __init__(self, plan: TrainingPlan, *, trained: TrainedRnn | None = None, clock: Clock | None = None) -> None:
        self._plan, self._trained, self._clock = plan, trained, clock
        self._history: History | None = None

    def fit(self, history: History) -> "RnnForecaster":
        if not np.isfinite(history.values).any():
            raise BadUsageData(
                f"series {history.series_id!r} holds no measured value",
                why="every value is missing",
                next_step="give a usage history with at least one value",
            )
        if self._trained is None:
            self._trained = train_rnn([history], self._plan, clock=self._clock)
        self._history = history
        return self

    def predict(self, horizon: int) -> SampleForecast:
        if self._history is None or self._trained is None:
            raise RuntimeError("rnn: fit() comes before predict()")
        return self._trained.forecast([self._history], horizon)[0]
