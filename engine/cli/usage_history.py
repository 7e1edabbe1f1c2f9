"""``shardwright forecast check``: what a usage history holds, what was mended, and what looks wrong."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli.console import Output, err, out, print_json, table
from engine.errors import UsageError

if TYPE_CHECKING:
    from forecasting.quality import QualityReport, SeriesQuality

Form = Annotated[Output, typer.Option("--output", help="How to print.")]


def register(app: typer.Typer) -> None:
    app.command("check")(check)


def check(
    usage: Annotated[Path | None, typer.Option("--usage", help="Parquet or CSV: series_id, timestamp, value.")] = None,
    metric: Annotated[str | None, typer.Option(help="The column to check, when there are several.")] = None,
    freq: Annotated[str | None, typer.Option(help="Step, such as 5min or 1h. Default: that of the file.")] = None,
    output: Form = Output.TABLE,
) -> None:
    """Tell per series of a usage file what was mended, and what looks wrong and was kept. Changes nothing."""
    from engine.clock import SystemClock
    from forecasting.durations import parse_duration
    from forecasting.quality import quality_report
    from forecasting.usage import read_usage

    if usage is None:
        raise UsageError("there is no usage file", why="--usage is missing", next_step="give --usage FILE")
    file = read_usage(usage, metric=metric, freq=parse_duration(freq) if freq else None)
    report = quality_report(file, now=SystemClock().now())
    if output is Output.JSON:
        print_json("usage_quality", report)
    else:
        _print(report)


def _print(report: "QualityReport") -> None:
    dirty = [one for one in report.series if not one.clean]
    if dirty:
        rows = [row for one in dirty for row in _rows(one)]
        columns = ("series", "what", "count", "where", "outcome")
        out().print(table(f"{report.metric}, steps of {report.step}", columns, rows, right=(2,)))
    measured, steps = (sum(getattr(one, key) for one in report.series) for key in ("measured", "steps"))
    err().print(
        f"{len(report.series)} series, {len(report.series) - len(dirty)} of them without a remark; "
        f"{measured} of {steps} steps measured",
        markup=False,
    )


def _rows(series: "SeriesQuality") -> Iterator[tuple[str, ...]]:
    for repair in series.repairs:
        where = f"row {repair.first_row}" if repair.first_row else ""
        yield series.series_id, repair.defect, str(repair.count), where, repair.action
    for finding in series.findings:
        where = f"{finding.start:%Y-%m-%d %H:%M}" if finding.start else ""
        yield series.series_id, finding.observation, "", where, f"kept as it is: {finding.text}"
    if series.more:
        yield series.series_id, "more", str(series.more), "", "findings of these kinds; JSON lists no more of them"
