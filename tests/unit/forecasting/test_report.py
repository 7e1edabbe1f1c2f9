from pathlib import Path

import numpy as np
import pytest

from forecasting.backtest import Evaluation, evaluate
from forecasting.report import as_html, how, write_report
from forecasting.synthetic import synthetic_history
from tests.contract.forecaster_contract import hourly


@pytest.fixture(scope="module")
def judged() -> Evaluation:
    gappy = synthetic_history(seed=4, series_id="<gappy>", days=8).values.copy()
    gappy[::5] = np.nan
    return evaluate([hourly(gappy, "<gappy>")], 12, origins=2, budget_seconds=0.5)


def test_the_page_stands_alone_and_escapes_names(judged: Evaluation) -> None:
    page = as_html(judged, "of <cores>")
    assert "of &lt;cores&gt;" in page
    assert "<gappy>" not in page.replace("\\u003cgappy\\u003e", "")
    assert 'src="http' not in page
    assert page.count("Plotly.newPlot") >= 3


def test_it_says_what_was_kept_from_training(judged: Evaluation) -> None:
    assert "last 20% of each series, which was never trained on; too few series to keep any back" in how(judged)


def test_it_is_written_whole(judged: Evaluation, tmp_path: Path) -> None:
    write_report(tmp_path / "r.html", judged, "r")
    assert [path.name for path in tmp_path.iterdir()] == ["r.html"]
