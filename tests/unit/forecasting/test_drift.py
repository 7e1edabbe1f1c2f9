import pytest

from forecasting.champion import Choice, Score
from forecasting.drift import drift_of
from forecasting.selection import Weight


def choice(name: str, **wql: float) -> Choice:
    scores = tuple(Score(forecaster=forecaster, wql=loss) for forecaster, loss in wql.items())
    weights = (Weight(forecaster="rnn", share=1.0),)
    return Choice(series_id=name, forecaster="rnn", weights=weights, scores=scores, why="")


def test_a_network_that_beats_seasonal_naive_has_not_drifted() -> None:
    found = drift_of([choice("a", rnn=0.5, seasonal_naive=1.0), choice("b", rnn=1.2, seasonal_naive=1.0)])
    assert found is not None
    assert found.ratio == pytest.approx(0.6**0.5)
    assert (found.series, found.worst, found.drifted) == (2, ("b",), False)


def test_one_that_loses_has() -> None:
    found = drift_of([choice("a", rnn=1.1, seasonal_naive=1.0), choice("b", rnn=1.5, seasonal_naive=1.0)])
    assert found is not None
    assert found.drifted
    assert found.worst == ("b", "a")


def test_without_scores_nothing_can_be_said() -> None:
    assert drift_of([choice("a"), choice("b", rnn=1.0), choice("c", rnn=1.0, seasonal_naive=0.0)]) is None
