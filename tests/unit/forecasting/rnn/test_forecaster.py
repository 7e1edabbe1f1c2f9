from engine.clock import ManualClock
from forecasting.rnn.forecaster import RnnForecaster
from forecasting.rnn.train import TrainingPlan
from tests.contract.forecaster_contract import HORIZON, START, ForecasterContract


class TestRnnForecaster(ForecasterContract):
    """Trains on each history of the contract, for a few steps."""

    shortest = 97  # a quarter of a day of context, 48 windows of 12 steps, and a day and a half held out

    def forecaster(self) -> RnnForecaster:
        plan = TrainingPlan(horizon=HORIZON, steps=60, batch=16, context=24, hidden=8, seed=1, learning_rate=1e-2)
        return RnnForecaster(plan, clock=ManualClock(START))
