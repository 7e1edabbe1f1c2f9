"""``shardwright forecast retrain`` and ``models``: the network that rounds forecast with, and where it came from."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli.configure import ConfigFile
from engine.cli.console import Output, err, out, plain, print_json, table

if TYPE_CHECKING:
    from engine.config import Configuration
    from engine.retraining.base import Retraining, RetrainingReport
    from forecasting.demand import Histories
    from forecasting.registry import ModelCard
    from forecasting.retraining import UsageRetraining

MODELS = Path(".shardwright/models")
Models = Annotated[
    Path | None,
    typer.Option(help="Folder of trained networks; default: the configuration's, or .shardwright/models."),
]
Form = Annotated[Output, typer.Option("--output", help="How to print.")]


def register(app: typer.Typer) -> None:
    app.command("retrain")(retrain)
    app.command("models")(models_)


def retrain(
    usage: Annotated[
        Path | None, typer.Option("--usage", help="Parquet or CSV; default: the usage of the configuration.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Also when neither schedule nor drift asks for it.")] = False,
    metric: Annotated[str | None, typer.Option(help="The column to train on, when there are several.")] = None,
    freq: Annotated[str | None, typer.Option(help="Step of the usage file; default: its own.")] = None,
    horizon: Annotated[int, typer.Option(min=1, max=2000, help="Steps to forecast, with --usage.")] = 24,
    budget: Annotated[float | None, typer.Option(min=0.1, help="Seconds that training may take.")] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same network; with --usage.")] = 0,
    models: Models = None,
    config: ConfigFile = None,
    output: Form = Output.TABLE,
) -> None:
    """Train the network again if that is due, and promote it if it is better on held-out origins."""
    from engine.app.retraining import retrain_by_hand

    say = plain(err())
    folder, retraining = (
        _of_configuration(config, models, budget)
        if usage is None
        else _of_file(usage, metric, freq, horizon, budget, seed, models or MODELS)
    )
    report = retrain_by_hand(folder, retraining, lambda event: say(f"{event.step}: {event.text}"), asked=force)
    if output is Output.JSON:
        print_json("retraining", report)
    else:
        out().print(_sentence(report))


def models_(models: Models = None, config: ConfigFile = None, output: Form = Output.TABLE) -> None:
    """List every trained network: version, when, from what, how good, and why it is promoted or not."""
    from forecasting.promotions import Promotions

    promotions = Promotions(_folder(models, config))
    records, cards = promotions.all(), promotions.registry.cards()
    standing = {one.model for one in promotions.promoted()}
    if output is Output.JSON:
        print_json("models", {"retrainings": records, "networks": cards, "standing": sorted(standing)})
        return
    by_model = {record.model: record for record in records if record.model}
    rows = [_row(card, by_model.get(card.fingerprint), card.fingerprint in standing) for card in cards]
    rows += [_failed_row(record) for record in records if not record.model]
    columns = ("network", "version", "trained (UTC)", "step", "series", "held-out loss", "promoted", "why")
    out().print(table(f"{len(cards)} networks in {promotions.registry.root}", columns, rows, right=(1, 4, 5)))


def _of_configuration(config: Path | None, models: Path | None, budget: float | None) -> "tuple[Path, UsageRetraining]":
    from engine.app.configured import load
    from engine.app.demand import ForecastDemand, models_folder
    from engine.app.retraining import round_retraining
    from engine.clock import SystemClock
    from engine.events import unseen

    configuration, clock = _with_budget(load(config), budget), SystemClock()
    retraining = round_retraining(configuration, ForecastDemand(configuration, clock, unseen), clock, models)
    return models or models_folder(configuration), retraining


def _of_file(
    usage: Path, metric: str | None, freq: str | None, horizon: int, budget: float | None, seed: int, models: Path
) -> "tuple[Path, UsageRetraining]":
    from engine.app.retraining import file_retraining
    from engine.clock import SystemClock
    from engine.config import RetrainingTable
    from forecasting.demand import Histories
    from forecasting.durations import parse_duration
    from forecasting.usage import read_usage

    file, left_out = read_usage(usage, metric=metric, freq=parse_duration(freq) if freq else None).measured()
    for name in left_out:
        err().print(f"left out: {name} holds no value")

    def read() -> "Histories":
        return Histories(file.histories, file.metric)

    return models, file_retraining(
        models,
        read,
        horizon=horizon,
        budget_seconds=budget or RetrainingTable().budget_seconds,
        seed=seed,
        clock=SystemClock(),
    )


def _with_budget(configuration: "Configuration", budget: float | None) -> "Configuration":
    if budget is None:
        return configuration
    table = configuration.forecast.retraining.model_copy(update={"budget_seconds": budget})
    forecast = configuration.forecast.model_copy(update={"retraining": table})
    return configuration.model_copy(update={"forecast": forecast})


def _folder(models: Path | None, config: Path | None) -> Path:
    from engine.app.configured import find_configuration, load
    from engine.app.demand import models_folder
    from engine.errors import ConfigurationError

    if models is not None:
        return models
    try:
        path = find_configuration(config)
    except ConfigurationError:
        return MODELS
    return models_folder(load(path))


def _sentence(report: "RetrainingReport") -> str:
    record = report.record
    if record is None:
        return f"nothing was trained: {report.verdict.why}"
    return f"version {record.version} is {'promoted' if record.promoted else 'not promoted'}: {record.outcome}"


def _row(card: "ModelCard", record: "Retraining | None", stands: bool) -> tuple[str, ...]:
    return (
        card.fingerprint[:12],
        str(record.version) if record else "-",
        f"{card.trained_at:%Y-%m-%d %H:%M}",
        f"{card.freq_seconds:g} s",
        str(card.series),
        f"{card.report.first_held_out_loss:.4f} -> {card.report.held_out_loss:.4f}",
        "stands" if stands else "was" if record and record.promoted else "no" if record else "-",
        f"{record.why}; {record.outcome}" if record else "trained for one forecast",
    )


def _failed_row(record: "Retraining") -> tuple[str, ...]:
    at = f"{record.ended_at:%Y-%m-%d %H:%M}"
    seconds = f"{record.step.total_seconds():g} s"
    return "-", str(record.version), at, seconds, str(record.series), "-", "no", f"{record.why}; {record.outcome}"
