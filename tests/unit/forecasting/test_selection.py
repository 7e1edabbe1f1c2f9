import numpy as np
import pytest

from forecasting.selection import LEAST_WEIGHT, as_words, mixture, recent_origins
from tests.contract.forecaster_contract import hourly


def shares(losses: dict[str, float], origins: int = 12) -> dict[str, float]:
    return {weight.forecaster: weight.share for weight in mixture(losses, "seasonal_naive", origins)}


def test_a_clear_winner_takes_all_and_near_equals_share() -> None:
    assert shares({"rnn": 0.5, "seasonal_naive": 1.0, "last_value": 1.2}) == {"rnn": 1.0}
    assert shares({"rnn": 2.0, "seasonal_naive": 1.0, "last_value": 0.2}) == {"last_value": 1.0}
    near = shares({"rnn": 1.0, "seasonal_naive": 0.99})
    assert set(near) == {"rnn", "seasonal_naive"}
    assert near["rnn"] > near["seasonal_naive"]


def test_shares_add_up_and_crumbs_are_swept_up() -> None:
    found = shares({"rnn": 1.0, "seasonal_naive": 1.02, "last_value": 1.1, "hour_of_week": 1.15})
    assert sum(found.values()) == pytest.approx(1.0)
    assert min(found.values()) >= LEAST_WEIGHT


def test_few_origins_speak_softly() -> None:
    bad_luck = {"rnn": 1.2, "seasonal_naive": 1.0}
    assert shares(bad_luck, origins=1).get("rnn", 0) > shares(bad_luck, origins=12).get("rnn", 0)


def test_nothing_lost_by_anyone_goes_to_the_network() -> None:
    assert shares({"rnn": 0.0, "seasonal_naive": 0.0}) == {"rnn": 1.0}
    assert shares({"seasonal_naive": 0.0, "last_value": 0.0}) == {"seasonal_naive": 1.0}


def test_units_do_not_matter() -> None:
    losses = {"rnn": 0.9, "seasonal_naive": 1.0, "last_value": 0.95}
    small = shares({name: loss * 1e-12 for name, loss in losses.items()})
    assert small == pytest.approx(shares(losses))


def test_origins_are_recent_leave_room_for_the_horizon_and_skip_outages() -> None:
    history = hourly(np.arange(60 * 24.0))
    found = recent_origins(history, 24)
    assert len(found) == 12
    assert min(found) >= 46 * 24
    assert max(found) == 59 * 24
    outage = history.values.copy()
    outage[-10 * 24 :] = np.nan
    assert max(recent_origins(hourly(outage), 24)) < 50 * 24
    assert recent_origins(hourly(np.ones(10)), 24) == []


def test_shares_in_words() -> None:
    assert as_words(mixture({"rnn": 0.5, "seasonal_naive": 1.0}, "seasonal_naive", 12)) == "rnn 100%"
