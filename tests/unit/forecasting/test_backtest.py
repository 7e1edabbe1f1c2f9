import numpy as np
import pytest

from engine.errors import BadUsageData
from forecasting.backtest import Evaluation, evaluate
from forecasting.synthetic import synthetic_history
from tests.contract.forecaster_contract import hourly


@pytest.fixture(scope="module")
def judged() -> Evaluation:
    """Two cycles, an idle series and a stub; too short a history for a network keeps it quick."""
    series = [synthetic_history(seed=i, series_id=f"s{i}", days=7) for i in (1, 2)]
    idle, stub = hourly(np.zeros(7 * 24), "idle"), hourly(np.ones(3), "stub")
    return evaluate([*series, idle, stub], 24, origins=3, budget_seconds=0.2)


def test_seasonal_naive_is_the_measure_of_all(judged: Evaluation) -> None:
    standings = {standing.forecaster: standing for standing in judged.standings}
    assert standings["seasonal_naive"].wql_ratio == pytest.approx(1.0)
    assert standings["seasonal_naive"].worst_ratio == pytest.approx(1.0)
    assert standings["last_value"].wql_ratio > 1.5
    assert 0.5 < standings["seasonal_naive"].coverage_90 <= 1.0


def test_what_is_left_out_is_named(judged: Evaluation) -> None:
    assert {result.series_id for result in judged.series} == {"s1", "s2"}
    assert any("idle" in note for note in judged.left_out)
    assert any("1 series: too short" in note for note in judged.left_out)


def test_the_test_span_is_never_shown_before(monkeypatch: pytest.MonkeyPatch) -> None:
    import forecasting.backtest as backtest

    seen = []
    genuine = backtest.network_for

    def watched(histories, *args, **options):  # type: ignore[no-untyped-def]
        seen.extend(len(history.values) for history in histories)
        return genuine(histories, *args, **options)

    monkeypatch.setattr(backtest, "network_for", watched)
    evaluate([synthetic_history(seed=1, days=5)], 12, origins=2, budget_seconds=0.2)
    assert seen == [int(0.8 * 5 * 24)]


def test_too_short_a_history_is_refused() -> None:
    with pytest.raises(BadUsageData, match="no series is long enough"):
        evaluate([hourly(np.ones(30))], 24)
