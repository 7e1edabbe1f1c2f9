"""A lab report as one HTML file that needs no network: standings, cost by cause, shortfall, capacity and load."""

from collections.abc import Sequence
from datetime import timedelta
from html import escape
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from engine.output_file import drafted
from lab.case import Case
from lab.experiment import CaseReport, LabReport, Played

STYLE = """body{font-family:system-ui,sans-serif;margin:2rem auto;max-width:75rem;color:#222}
table{border-collapse:collapse;margin:1rem 0}th,td{padding:.3rem .7rem;text-align:right;border-bottom:1px solid #ddd}
th:first-child,td:first-child{text-align:left}.broken{color:#b00020}"""
Figure = Any  # plotly brings no types


def write_report(path: Path, report: LabReport, cases: tuple[Case, ...]) -> None:
    """Write the file whole or not at all."""
    with drafted(path) as draft:
        draft.write_text(as_html(report, cases), encoding="utf-8")


def as_html(report: LabReport, cases: tuple[Case, ...]) -> str:
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Lab</title><style>{STYLE}</style>",
        f"<script>{get_plotlyjs()}</script><h1>Capacity game: {len(cases)} cases</h1>",
        f"<p>Seed {report.seed}. Cost is above the clairvoyant bound, which knows all demand, prices and depths.</p>",
        *(f"<p>{escape(note)}</p>" for note in report.notes),
        _inputs(report),
        _standings(report),
    ]
    for case_report, case in zip(report.cases, cases, strict=True):
        parts.append(f"<h2>{escape(case_report.case)}</h2><p>{escape(case_report.title)}. Inputs ")
        parts.append(f"{case_report.fingerprint}; bound {case_report.bound.cost:.2f} USD.</p>{_plays(case_report)}")
        figures = (_causes(case_report), _shortfall(case_report), _capacity(case_report, case))
        parts += [figure.to_html(full_html=False, include_plotlyjs=False) for figure in figures]
    return "\n".join(parts) + "</html>\n"


def _inputs(report: LabReport) -> str:
    if report.inputs is None:
        return ""
    rows = [(each.option, escape(each.path), f"<code>{each.sha256}</code>") for each in report.inputs.files]
    said = f"<p>Made by version {escape(report.inputs.version)} with <code>{escape(report.inputs.command())}</code></p>"
    return said + _table(("input", "file", "SHA-256"), rows)


def _ratio(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.3f}"


def _table(headings: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    body = "".join("<tr>" + "".join(f"<td>{cell}" for cell in row) for row in rows)
    return "<table><tr>" + "".join(f"<th>{heading}" for heading in headings) + body + "</table>"


def _standings(report: LabReport) -> str:
    rows = [
        (
            escape(s.policy),
            _ratio(s.cost_to_bound),
            _ratio(s.cost_to_best),
            f"{s.kept} of {s.cases}",
        )
        for s in report.standings
    ]
    return _table(("policy", "cost / bound", "cost / best baseline", "risk kept"), rows)


def _plays(report: CaseReport) -> str:
    limits = report.played[0].result.limits
    rows = []
    for each in report.played:
        result, kept = each.result, "" if each.result.keeps_risk else " class=broken"
        rows.append(
            (
                f"<span{kept}>{escape(each.policy)}</span>",
                f"{result.cost:.2f}",
                _ratio(each.cost_to_bound),
                f"{each.regret.sizing:.2f}",
                f"{each.regret.market:.2f}",
                *(f"{_of_class(each, name):.3%}" for name in limits),
                "kept" if result.keeps_risk else "<span class=broken>broken</span>",
                str(result.preemptions),
                str(result.moves),
                str(result.malformed + result.late),
            )
        )
    short = tuple(f"{escape(name)} short (at most {limit:.3%})" for name, limit in limits.items())
    headings = ("policy", "cost, USD", "/ bound", "sizing", "market", *short, "risk", "reclaimed", "moved", "no answer")
    return _table(headings, rows)


def _figure(title: str, up: str) -> Figure:
    figure = go.Figure(layout={"title": title, "height": 420, "template": "plotly_white"})
    figure.update_yaxes(title=up)
    return figure


def _causes(report: CaseReport) -> Figure:
    figure = _figure("Cost by cause", "USD")
    figure.update_layout(barmode="relative")
    names = [each.policy for each in report.played]
    bound = float(report.bound.cost)
    figure.add_bar(x=names, y=[bound for _ in names], name="bound")
    figure.add_bar(x=names, y=[float(each.regret.sizing) for each in report.played], name="sizing")
    figure.add_bar(x=names, y=[float(each.regret.market) for each in report.played], name="market")
    return figure


def _shortfall(report: CaseReport) -> Figure:
    figure = _figure("Shortfall as a share of its limit", "share of the limit")
    for name, limit in report.played[0].result.limits.items():
        shares = [_of_class(each, name) / limit if limit else 0.0 for each in report.played]
        figure.add_bar(x=[each.policy for each in report.played], y=shares, name=name)
    figure.add_hline(y=1, line={"dash": "dot", "color": "#888"})
    return figure


def _of_class(played: Played, name: str) -> float:
    return played.result.shortfall_by_class.get(name, played.result.shortfall_rate)


def _capacity(report: CaseReport, case: Case) -> Figure:
    """Of the best baseline and of whatever was played first; the others can be switched on."""
    figure = _figure("Demand and capacity, all fleets", "shards")
    times = [case.start + step * timedelta(minutes=case.step_minutes) for step in range(case.steps)]
    demand = [sum(pool.demand[step] for pool in case.pools) for step in range(case.steps)]
    figure.add_scatter(x=times, y=demand, mode="lines", name="demand", line={"color": "#222"})
    shown = {report.played[0].policy, report.best_baseline}
    for each in report.played:
        held = [sum(path[step] for path in each.result.bought) for step in range(case.steps)]
        visible = True if each.policy in shown else "legendonly"
        figure.add_scatter(x=times, y=held, mode="lines", name=each.policy, visible=visible)
    return figure
