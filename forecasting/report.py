"""An evaluation as one HTML file that needs no network: standings, reliability, coverage, fan charts."""

from datetime import timedelta
from html import escape
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from engine.output_file import drafted
from forecasting.backtest import CHAMPION, Evaluation, Fan
from forecasting.reliability import ADDITIONAL
from forecasting.scores import Standing

STYLE = """body{font-family:system-ui,sans-serif;margin:2rem auto;max-width:70rem;color:#222}
table{border-collapse:collapse}th,td{padding:.3rem .7rem;text-align:right;border-bottom:1px solid #ddd}
th:first-child,td:first-child{text-align:left}"""
HEADINGS = ("forecaster", "WQL", "/ naive", "worst", "MASE / naive", "p95 / naive", "p99 / naive", "in 80 %", "in 90 %")
Figure = Any  # plotly brings no types


def write_report(path: Path, evaluation: Evaluation, title: str) -> None:
    """Write the file whole or not at all."""
    with drafted(path) as draft:
        draft.write_text(as_html(evaluation, title), encoding="utf-8")


def as_html(evaluation: Evaluation, title: str) -> str:
    figures = [_coverage(evaluation), _reliability(evaluation), *(_fan(fan) for fan in evaluation.fans)]
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(title)}</title><style>{STYLE}</style>",
        f"<script>{get_plotlyjs()}</script><h1>{escape(title)}</h1><p>{escape(how(evaluation))}</p>",
        "<h2>All series</h2>" + _table(evaluation.standings),
    ]
    if evaluation.unseen_standings:
        parts.append("<h2>Series that no network was trained on</h2>" + _table(evaluation.unseen_standings))
    parts += [figure.to_html(full_html=False, include_plotlyjs=False) for figure in figures]
    if evaluation.left_out:
        parts.append("<h2>Left out</h2><ul>" + "".join(f"<li>{escape(x)}" for x in evaluation.left_out) + "</ul>")
    return "\n".join(parts) + "</html>\n"


def how(evaluation: Evaluation) -> str:
    """What was kept from training, in words."""
    unseen = sum(result.unseen for result in evaluation.series)
    by_series = f"; nor were {unseen} of the series at all" if unseen else "; too few series to keep any back"
    return (
        f"{len(evaluation.series)} series, {evaluation.horizon} steps ahead, {evaluation.origins} origins in the last "
        f"{evaluation.test_share:.0%} of each series, which was never trained on{by_series}. Ratios are geometric "
        f"means over series of loss / seasonal-naive loss. Network: {evaluation.network}."
    )


def _table(standings: tuple[Standing, ...]) -> str:
    rows = "".join("<tr>" + "".join(f"<td>{cell}" for cell in _cells(s)) for s in standings)
    return "<table><tr>" + "".join(f"<th>{heading}" for heading in HEADINGS) + rows + "</table>"


def _cells(s: Standing) -> tuple[str, ...]:
    numbers = (s.wql, s.wql_ratio, s.worst_ratio, s.mase_ratio, s.pinball_95_ratio, s.pinball_99_ratio)
    return (escape(s.forecaster), *(f"{x:.3f}" for x in numbers), f"{s.coverage_80:.1%}", f"{s.coverage_90:.1%}")


def _square(title: str, across: str, up: str) -> Figure:
    figure = go.Figure(layout={"title": title, "width": 560, "height": 520, "template": "plotly_white"})
    figure.update_xaxes(title=across, range=[0, 1])
    figure.update_yaxes(title=up, range=[0, 1])
    figure.add_scatter(x=[0, 1], y=[0, 1], mode="lines", line={"dash": "dot", "color": "#888"}, name="perfect")
    return figure


def _coverage(evaluation: Evaluation) -> Figure:
    figure = _square("Quantiles: what they say and what they hold", "level", "share of steps at or below")
    for s in evaluation.standings:
        if s.forecaster in (CHAMPION, "seasonal_naive"):
            x, y = [c.level for c in s.coverage], [c.below for c in s.coverage]
            figure.add_scatter(x=x, y=y, mode="lines+markers", name=s.forecaster)
    return figure


def _reliability(evaluation: Evaluation) -> Figure:
    figure = _square("P(need ≥ k more within the horizon)", "said", "came true")
    for k in ADDITIONAL:
        bins = [b for b in evaluation.reliability if b.additional == k]
        x, y = [b.predicted for b in bins], [b.observed for b in bins]
        figure.add_scatter(x=x, y=y, mode="lines+markers", name=f"k = {k}", text=[f"n = {b.questions}" for b in bins])
    return figure


def _fan(fan: Fan) -> Figure:
    step = timedelta(seconds=fan.step_seconds)
    before = [fan.start + (i - len(fan.past)) * step for i in range(len(fan.past))]
    ahead = [fan.start + i * step for i in range(len(fan.truth))]
    figure = go.Figure(layout={"title": fan.series_id, "height": 340, "template": "plotly_white"})
    half = len(fan.levels) // 2
    for i in range(half):
        low, high = fan.quantiles[i], fan.quantiles[-1 - i]
        name = f"{fan.levels[i]:.0%} … {fan.levels[-1 - i]:.0%}"
        figure.add_scatter(x=ahead, y=low, mode="lines", line={"width": 0}, showlegend=False)
        figure.add_scatter(
            x=ahead,
            y=high,
            mode="lines",
            line={"width": 0},
            fill="tonexty",
            name=name,
            fillcolor="rgba(31,119,180,.25)",
        )
    figure.add_scatter(x=ahead, y=fan.quantiles[half], mode="lines", name="median", line={"color": "#1f77b4"})
    measured = {"color": "#222"}
    figure.add_scatter(x=before + ahead, y=[*fan.past, *fan.truth], mode="lines", name="measured", line=measured)
    return figure
