"""``shardwright forecast check``, ``fetch`` and ``holidays``: what goes into a forecast."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli.configure import ConfigFile
from engine.cli.console import Output, err, out, print_json, table
from engine.errors import AuthenticationFailed, ProviderError, UsageError

if TYPE_CHECKING:
    from forecasting.connectors.sources import Refreshed
    from forecasting.quality import QualityReport, SeriesQuality

Form = Annotated[Output, typer.Option("--output", help="How to print.")]


def register(app: typer.Typer) -> None:
    app.command("check")(check)
    app.command("fetch")(fetch)
    app.command("holidays")(holidays)


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
        f"{measured} of {steps} steps measured"
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


def fetch(
    config: ConfigFile = None,
    output: Form = Output.TABLE,
) -> None:
    """Bring every configured source of usage up to date, as a round does, and tell how old each is."""
    from engine.app.configured import load
    from engine.app.usage_sources import open_sources
    from engine.clock import SystemClock

    configuration = load(config)
    if not configuration.forecast.sources:
        raise UsageError(
            "no source of usage is configured",
            why="[[forecast.sources]] is empty",
            next_step="name one (docs/how-to/usage-history.md), then shardwright forecast fetch",
        )
    clock = SystemClock()
    states = open_sources(configuration, clock).refresh(clock.now())
    if output is Output.JSON:
        print_json("usage_sources", states)
    else:
        _print_sources(states)
    _require_all(states)


def _print_sources(states: "Sequence[Refreshed]") -> None:
    from forecasting.durations import roughly

    rows = [
        (
            state.source,
            str(state.samples),
            str(state.added),
            f"{state.newest:%Y-%m-%d %H:%M}" if state.newest else "-",
            roughly(state.age) if state.age is not None else "-",
            "; ".join(part for part in (state.left_out, state.failure) if part),
        )
        for state in states
    ]
    columns = ("source", "samples", "new", "newest (UTC)", "age", "failure")
    out().print(table(f"{len(rows)} sources of usage", columns, rows, right=(1, 2)))


def _require_all(states: "Sequence[Refreshed]") -> None:
    """What could be fetched is kept; the exit code says that some of it could not."""
    failed = [state for state in states if state.failure]
    if not failed:
        return
    refused = all(state.kind == AuthenticationFailed.__name__ for state in failed)
    kind = AuthenticationFailed if refused else ProviderError
    raise kind(
        f"{', '.join(state.source for state in failed)} could not be brought up to date; what was kept before still is",
        why="; ".join(state.failure for state in failed),
        next_step="put that right, then shardwright forecast fetch",
    )


def holidays(
    region: Annotated[str, typer.Option(help="Country or part of it, such as DE, DE-BY or US-CA.")],
    start: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="First day.")],
    end: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="Last day.")],
    zone: Annotated[str, typer.Option(help="Time zone whose midnights count, such as Europe/Berlin.")] = "UTC",
    output_file: Annotated[Path | None, typer.Option(help="CSV of events: kind, start, end, name.")] = None,
    output: Form = Output.TABLE,
) -> None:
    """List the public holidays of a region, and write them as a file of events."""
    from forecasting.holiday_calendar import holidays_of, write_events

    found = holidays_of(region, zone, start.date(), end.date())
    if output_file is not None:
        write_events(output_file, found)
        err().print(f"{len(found)} holidays written to {output_file}")
    if output is Output.JSON:
        print_json("holidays", found)
    else:
        rows = [(f"{one.start:%Y-%m-%d %H:%M}", f"{one.end:%Y-%m-%d %H:%M}", one.name) for one in found]
        out().print(table(f"Holidays of {region}, in UTC", ("start", "end", "name"), rows))
