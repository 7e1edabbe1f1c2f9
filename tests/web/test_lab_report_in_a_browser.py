"""The page that the lab writes, opened as a file: drawn in full, without a network."""

from pathlib import Path

from lab.experiment import run_lab
from lab.report import write_report
from tests.unit.lab.generated import generated
from tests.web.browser import Browser


def test_the_lab_report_draws_every_plot_and_asks_for_nothing(browser: Browser, tmp_path: Path) -> None:
    cases = (generated(steps=12),)
    policies = ["reactive", "greedy-spot"]
    report = run_lab(cases, policies)
    write_report(tmp_path / "lab.html", report, cases)
    browser.console()
    browser.requested()  # of what was open before
    browser.open((tmp_path / "lab.html").as_uri())
    assert browser.console() == []
    asked = [address for address in browser.requested() if not address.startswith(("data:", "blob:"))]
    assert asked == [(tmp_path / "lab.html").as_uri()]
    bars, lines = browser.run(
        "const drawn = (plot, marks) => [...plot.querySelectorAll(marks)].filter("
        "  (mark) => mark.getBoundingClientRect().width + mark.getBoundingClientRect().height > 1).length;"
        "const plots = [...document.querySelectorAll('.js-plotly-plot')];"
        "return [plots.map((plot) => drawn(plot, '.barlayer .point path')),"
        "        plots.map((plot) => drawn(plot, '.scatterlayer .trace'))];"
    )
    causes, capacity = 3 * len(policies), 2  # bound, sizing, market; demand and the best baseline, also the first
    assert bars[0] == causes
    assert lines[2] >= capacity
    plays = "[...document.querySelectorAll('table')[1].rows]"
    rows = browser.run(f"return {plays}.map((row) => row.innerText.split('\\t'))")
    assert [row[0] for row in rows] == ["policy", *policies]
    limits = report.cases[0].played[0].result.limits
    assert list(limits) == ["gold", "silver", "bronze", "overall"]
    assert rows[0][5:9] == [f"{name} short (at most {limit:.3%})" for name, limit in limits.items()]
    best = report.cases[0].of("greedy-spot").result
    assert rows[2][1] == f"{best.cost:.2f}"
    assert rows[2][-3:] == [str(best.preemptions), str(best.moves), "0"]
