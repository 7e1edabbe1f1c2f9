"""``shardwright forecast``: quantiles to a file, the probability of needing more shards, and how good it all is."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from engine.cli import retraining, usage_history
from engine.cli.console import Output, changing_line, err, out, plain, print_json, table
from engine.cli.numbers import finite
from engine.cli.scale import EngineChoice, RayAddress, Workers
from engine.errors import BadUsageData, UsageError
from engine.output_file import require_folder
from forecasting.scale.engines import Engine, spread_over
from forecasting.scale.spread import IN_PROCESS, Progress, Spread, at_quarters

if TYPE_CHECKING:
    from forecasting.backtest import Evaluation
    from forecasting.base import History
    from forecasting.champion import Champions, Choice
    from forecasting.events import Effect, Event
    from forecasting.sample_forecast import SampleForecast
    from forecasting.scores import Standing
    from forecasting.target import Need
    from forecasting.usage import UsageFile

DEFAULT_QUANTILES = "0.05,0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,0.95,0.99"
MODELS = Path(".shardwright/models")

UsagePath = Annotated[Path | None, typer.Option("--usage", help="Parquet or CSV: series_id, timestamp, value.")]
Metric = Annotated[str | None, typer.Option(help="The column to forecast, when there are several.")]
Freq = Annotated[str | None, typer.Option(help="Step, such as 5min or 1h. Default: that of the file.")]
Events = Annotated[Path | None, typer.Option(help="CSV of scheduled events: kind, start, end, series_id.")]
Budget = Annotated[float, typer.Option(callback=finite, min=0.1, help="Seconds that training may take.")]
Seed = Annotated[int, typer.Option(help="Same seed, same forecast.")]
Models = Annotated[Path, typer.Option(help="Folder of trained networks; the same history is not trained on twice.")]
Form = Annotated[Output, typer.Option("--output", help="How to print.")]

app = typer.Typer(help="Forecast usage as a distribution.", invoke_without_command=True)
usage_history.register(app)
retraining.register(app)


@app.callback(invoke_without_command=True)
def forecast(
    context: typer.Context,
    usage: UsagePath = None,
    freq: Freq = None,
    horizon: Annotated[int, typer.Option(min=1, max=2000, help="Steps to forecast.")] = 24,
    metric: Metric = None,
    quantiles: Annotated[str, typer.Option(help="Comma-separated, between 0 and 1.")] = DEFAULT_QUANTILES,
    paths: Annotated[int, typer.Option(min=20, max=10_000, help="Joint sample paths per series.")] = 400,
    budget: Budget = 120.0,
    seed: Seed = 0,
    models: Models = MODELS,
    events: Events = None,
    engine: EngineChoice = Engine.LOCAL,
    workers: Workers = None,
    ray_address: RayAddress = None,
    output_file: Annotated[Path | None, typer.Option(help="Parquet: series_id, timestamp, quantile, value.")] = None,
    output: Form = Output.TABLE,
) -> None:
    """Forecast every series of a usage file."""
    if context.invoked_subcommand is not None:
        return
    levels = _quantiles(quantiles)
    if output_file is not None:
        require_folder(output_file)
    file, left_out = _measured(_read(usage, metric, freq))
    plans = _events(events, file)
    file = plans.without(file)
    _tell_what_is_stale(file, horizon)
    with (
        _progress(f"training for at most {budget:g} s") as told,
        spread_over(engine, workers, ray_address, told) as spread,
    ):
        field = _champions(file, horizon, budget, seed, models, spread)
        made = field.forecast(file.histories, horizon, paths=paths, spread=spread)
    _tell_about(field)
    made = plans.applied(made)
    if output_file is not None:
        from forecasting.forecast_file import write_forecasts

        rows = write_forecasts(output_file, made, levels)
        err().print(f"{rows} rows written to {output_file}")
    if output is Output.JSON:
        _print_forecasts(file, field, made, levels, left_out)
    else:
        out().print(_summary(file, field, made))


@app.command()
def probability(
    usage: UsagePath = None,
    per_shard: Annotated[float, typer.Option(callback=finite, help="How much of the metric one shard serves.")] = 1.0,
    additional: Annotated[int | None, typer.Option(min=1, help="How many shards more.")] = None,
    at_least: Annotated[
        float | None, typer.Option(callback=finite, min=0.01, max=0.99, help="Ask for a probability instead.")
    ] = None,
    within: Annotated[str, typer.Option(help="How soon, such as 1h.")] = "1h",
    current: Annotated[int | None, typer.Option(min=0, help="Shards now. Default: what the last value needs.")] = None,
    shard_type: Annotated[str, typer.Option(help="Its name, for the sentence.")] = "cpu.small",
    series: Annotated[str | None, typer.Option(help="Only this series.")] = None,
    freq: Freq = None,
    metric: Metric = None,
    budget: Budget = 120.0,
    seed: Seed = 0,
    models: Models = MODELS,
    output: Form = Output.TABLE,
) -> None:
    """Say how likely more shards are needed soon, beside what seasonal naive says."""
    from forecasting.durations import parse_duration
    from forecasting.target import sentence

    if additional is not None and at_least is not None:
        raise UsageError("--additional and --at-least ask two questions", next_step="give one of them")
    span = parse_duration(within)
    file, _ = _measured(_only(_read(usage, metric, freq), series))
    horizon = max(ceil(span / file.freq), 1)
    with _progress(f"training for at most {budget:g} s"):
        field = _champions(file, horizon, budget, seed, models)
    _tell_about(field)
    answers = []
    by_champion = field.forecast(file.histories, horizon, paths=1000)
    by_naive = field.forecast(file.histories, horizon, by="seasonal_naive")
    for history, ours, naive in zip(file.histories, by_champion, by_naive, strict=True):
        now = _shards_now(history, per_shard) if current is None else current
        needs = [_need(made, per_shard, now, span, additional, at_least) for made in (ours, naive)]
        for made, need in zip((ours, naive), needs, strict=True):
            answers.append(
                {
                    "series_id": history.series_id,
                    "forecaster": made.forecaster,
                    "current": now,
                    "additional": need.additional,
                    "within_seconds": span.total_seconds(),
                    "probability": need.probability,
                    "sentence": sentence(need, shard_type),
                }
            )
    if output is Output.JSON:
        print_json("probability", answers)
        return
    for answer in answers:
        note = f"[{answer['series_id']}, {answer['forecaster']}, {answer['current']} now]"
        out().print(f"{answer['sentence']}  {note}")


@app.command()
def evaluate(
    usage: UsagePath = None,
    horizon: Annotated[int, typer.Option(min=1, max=2000, help="Steps to forecast.")] = 24,
    freq: Freq = None,
    metric: Metric = None,
    origins: Annotated[int, typer.Option(min=1, max=200, help="Moments to forecast from.")] = 8,
    test_share: Annotated[
        float, typer.Option(callback=finite, min=0.05, max=0.5, help="End of each series kept for the test.")
    ] = 0.2,
    budget: Budget = 120.0,
    seed: Seed = 0,
    models: Models = MODELS,
    engine: EngineChoice = Engine.LOCAL,
    workers: Workers = None,
    ray_address: RayAddress = None,
    boosting: Annotated[
        bool, typer.Option("--boosting", help="Judge gradient boosting too: seconds per series and origin.")
    ] = False,
    html: Annotated[Path | None, typer.Option(help="Also write a page: standings, reliability, fan charts.")] = None,
    output: Form = Output.TABLE,
) -> None:
    """Judge all forecasters on the end of each series, and on series, that no network was trained on."""
    from forecasting.backtest import evaluate as judge
    from forecasting.registry import ModelRegistry

    if html is not None:
        require_folder(html)
    file, _ = _measured(_read(usage, metric, freq))
    with (
        _progress(f"training for at most {budget:g} s, then {origins} origins") as told,
        spread_over(engine, workers, ray_address, told) as spread,
    ):
        result = judge(
            file.histories,
            horizon,
            test_share=test_share,
            origins=origins,
            budget_seconds=budget,
            seed=seed,
            registry=ModelRegistry(models),
            boosting=boosting,
            spread=spread,
        )
    if html is not None:
        from forecasting.report import write_report

        write_report(html, result, f"Forecasts of {file.metric}")
        err().print(f"report written to {html}")
    if output is Output.JSON:
        print_json("evaluation", result)
    else:
        _print_evaluation(result)


def _read(usage: Path | None, metric: str | None, freq: str | None) -> "UsageFile":
    """Repairs are told on stderr: nothing is mended in silence."""
    from forecasting.durations import parse_duration
    from forecasting.usage import read_usage

    if usage is None:
        raise UsageError("there is no usage file", why="--usage is missing", next_step="give --usage FILE")
    file = read_usage(usage, metric=metric, freq=parse_duration(freq) if freq else None)
    counts: dict[tuple[str, str], list[int]] = {}
    for repair in file.repairs:
        counts.setdefault((repair.defect, repair.action), []).append(repair.count)
    for (defect, action), found in counts.items():
        err().print(f"{defect}: {sum(found)} in {len(found)} series; {action}")
    return file


def _measured(file: "UsageFile") -> tuple["UsageFile", tuple[str, ...]]:
    """Nothing can be said of a series without any value: it is named, and the others are forecast."""
    kept, left_out = file.measured()
    for name in left_out[:5]:
        err().print(f"left out: {name} holds no value")
    if len(left_out) > 5:
        err().print(f"left out: {len(left_out) - 5} more series without a value")
    return kept, left_out


def _only(file: "UsageFile", series: str | None) -> "UsageFile":
    from dataclasses import replace
    from difflib import get_close_matches

    if series is None:
        return file
    kept = tuple(history for history in file.histories if history.series_id == series)
    if not kept:
        names = [history.series_id for history in file.histories]
        close = get_close_matches(series, names, 1)
        raise BadUsageData(
            f"there is no series {series!r}" + (f"; did you mean {close[0]!r}?" if close else ""),
            why=f"the file holds {len(names)} series, such as {names[0]!r}",
            next_step="give one of them with --series",
        )
    return replace(file, histories=kept)


def _champions(
    file: "UsageFile", horizon: int, budget: float, seed: int, models: Path, spread: Spread = IN_PROCESS
) -> "Champions":
    from forecasting.champion import champions
    from forecasting.registry import ModelRegistry

    registry = ModelRegistry(models)
    return champions(file.histories, horizon, budget_seconds=budget, seed=seed, registry=registry, spread=spread)


def _tell_about(field: "Champions") -> None:
    from forecasting.drift import drift_of

    if field.rnn_missing:
        err().print(f"no network: {field.rnn_missing}")
    else:
        err().print(f"network: {field.network.origin}")
    drift = drift_of(field.choices)
    if drift is not None and drift.drifted:
        words = f"the network loses {drift.ratio:.2f} times what seasonal naive does on recent moments"
        err().print(f"drift: {words}; worst on {', '.join(drift.worst)}; the mixture leans on others")
    cold = [choice.series_id for choice in field.choices if choice.why.startswith("cold start")]
    if cold:
        names = ", ".join(cold[:5]) + (" …" if len(cold) > 5 else "")
        err().print(f"cold start, too little history to score: {len(cold)} series ({names})")


def _tell_what_is_stale(file: "UsageFile", horizon: int) -> None:
    """Each series is forecast from its own end; one that ended before the others began their forecast is told."""
    newest = max(history.end for history in file.histories)
    stale = [history for history in file.histories if newest - history.end >= horizon * history.freq]
    for history in stale[:5]:
        words = f"ends {history.end:%Y-%m-%d %H:%M}, {newest - history.end} before the newest; forecast from there"
        err().print(f"stale: {history.series_id} {words}")
    if len(stale) > 5:
        err().print(f"stale: {len(stale) - 5} more series")


class _Events(NamedTuple):
    """Scheduled events and what such events did before."""

    scheduled: "tuple[Event, ...]" = ()
    effects: "tuple[Effect, ...]" = ()

    def without(self, file: "UsageFile") -> "UsageFile":
        from dataclasses import replace

        from forecasting.events import without

        if not self.effects:
            return file
        return replace(file, histories=tuple(without(h, self.scheduled, self.effects) for h in file.histories))

    def applied(self, made: "list[SampleForecast]") -> "list[SampleForecast]":
        from forecasting.events import with_events

        return [with_events(each, self.scheduled, self.effects) for each in made] if self.effects else made


def _events(path: Path | None, file: "UsageFile") -> _Events:
    """What was learnt, and what could not be, is told on stderr."""
    from math import exp

    from forecasting.events import learn, read_events, unknown_kinds

    if path is None:
        return _Events()
    scheduled = read_events(path)
    effects = learn(scheduled, file.histories)
    for effect in effects:
        words = f"event {effect.kind}: {exp(effect.log_mean):.2f} times the usual, from {effect.occurrences} before"
        err().print(words)
    for kind in unknown_kinds(scheduled, effects):
        err().print(f"event {kind}: never seen in this history, so it changes nothing")
    return _Events(scheduled, effects)


@contextmanager
def _progress(what: str) -> Iterator[Progress]:
    """Tells what begins; what is yielded tells how many pieces are done."""
    console = err()
    with changing_line(console, what) as change:
        if change is not None:
            yield lambda what, done, of: change(f"{what}: {done} of {of} pieces")
            return
        console.print(what)
        yield at_quarters(plain(console))


def _quantiles(text: str) -> list[float]:
    try:
        levels = sorted({float(part) for part in text.split(",")})
    except ValueError:
        levels = []
    if not levels or not all(0 < level < 1 for level in levels):
        raise UsageError(
            f"--quantiles {text!r} cannot be read",
            why="each must be a number between 0 and 1",
            next_step="write for example --quantiles 0.1,0.5,0.9",
        )
    return levels


def _need(
    made: "SampleForecast", per_shard: float, now: int, span: timedelta, additional: int | None, at_least: float | None
) -> "Need":
    from forecasting.target import need_at, need_for, telling_need

    if additional is not None:
        return need_for(made, per_shard, now, span, additional)
    if at_least is not None:
        return need_at(made, per_shard, now, span, at_least)
    return telling_need(made, per_shard, now, span)


def _shards_now(history: "History", per_shard: float) -> int:
    import numpy as np

    from forecasting.target import shards_for

    measured = history.values[np.isfinite(history.values)]
    return int(shards_for(measured[-1:], per_shard)[0]) if len(measured) else 0


def _print_forecasts(
    file: "UsageFile",
    field: "Champions",
    made: list["SampleForecast"],
    levels: list[float],
    left_out: tuple[str, ...],
) -> None:
    from forecasting.drift import drift_of
    from forecasting.forecast_file import quantile_points

    series = [
        {
            "series_id": choice.series_id,
            "forecaster": each.forecaster,
            "why": choice.why,
            "scores": list(choice.scores),
            "weights": list(choice.weights),
        }
        for choice, each in zip(field.choices, made, strict=True)
    ]
    points = list(quantile_points(made, levels))
    print_json(
        "forecast",
        {
            "metric": file.metric,
            "series": series,
            "left_out": left_out,
            "repairs": file.repairs,
            "training": field.training,
            "network": field.network.origin,
            "drift": drift_of(field.choices),
            "points": points,
        },
    )


def _summary(file: "UsageFile", field: "Champions", made: list["SampleForecast"]) -> object:
    rows = [_summary_row(choice, each) for choice, each in zip(field.choices, made, strict=True)]
    columns = ("series", "from", "by", "WQL rnn", "WQL naive", "peak p50", "peak p90", "peak p99")
    title = f"{file.metric}: {made[0].horizon} steps of {file.freq}"
    return table(title, columns, rows, right=(3, 4, 5, 6, 7))


def _summary_row(choice: "Choice", made: "SampleForecast") -> tuple[str, ...]:
    import numpy as np

    peaks = np.quantile(made.maxima(made.horizon * made.freq), (0.5, 0.9, 0.99))
    scores = (choice.wql_of("rnn"), choice.wql_of("seasonal_naive"))
    return (
        choice.series_id,
        f"{made.start:%Y-%m-%d %H:%M}",
        made.forecaster,
        *("-" if score is None else f"{score:.3f}" for score in scores),
        *(f"{peak:.4g}" for peak in peaks),
    )


def _print_evaluation(result: "Evaluation") -> None:
    from forecasting.report import how

    out().print(_standings("all series", result.standings))
    if result.unseen_standings:
        out().print(_standings("series that no network was trained on", result.unseen_standings))
    for note in (how(result), *result.left_out):
        err().print(note)
    if result.rnn_missing:
        err().print(f"no network: {result.rnn_missing}")


def _standings(title: str, standings: "Sequence[Standing]") -> object:
    ratios = ("/ naive", "worst", "MASE / naive", "p95 / naive", "p99 / naive")
    columns = ("forecaster", "WQL", *ratios, "in 80 %", "in 90 %", "below 99 %")
    rows = [
        (
            s.forecaster,
            *(f"{x:.3f}" for x in (s.wql, s.wql_ratio, s.worst_ratio, s.mase_ratio)),
            *(f"{x:.3f}" for x in (s.pinball_95_ratio, s.pinball_99_ratio)),
            *(f"{x:.1%}" for x in (s.coverage_80, s.coverage_90, s.below_99)),
        )
        for s in standings
    ]
    return table(title, columns, rows, right=range(1, len(columns)))
