"""``shardwright lab``: replay demand, prices and spot availability through policies; what each would have cost."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli.console import Output, err, out, plain, print_json, table
from engine.cli.numbers import finite
from engine.cli.scale import EngineChoice, RayAddress, Workers
from engine.errors import UsageError
from engine.output_file import drafted, require_folder
from forecasting.scale.engines import Engine, spread_over

if TYPE_CHECKING:
    from rich.table import Table

    from lab.case import Case
    from lab.experiment import CaseReport, LabReport, Played
    from lab.inputs import Inputs

app = typer.Typer(
    help="Replay demand and markets through policies; see what each would have cost.", no_args_is_help=True
)

Cases = Annotated[list[Path] | None, typer.Option("--case", help="A case file; may be repeated, and more may follow.")]
More = Annotated[list[Path] | None, typer.Argument(help="More case files.", show_default=False)]
Form = Annotated[Output, typer.Option(help="table or json")]
ALL = "all"
NOT_RECORDED = {"output", "output_file", "html", "case_file", "engine", "workers", "ray_address"}
"""Options that change no figure."""
BUILDING = {"risk", "days", "metric", "per_shard", "vcpus", "memory_gib", "regions"}
"""Options of a case that is built from ``--usage``."""


@app.command()
def run(
    context: typer.Context,
    more: More = None,
    case: Cases = None,
    policies: Annotated[str, typer.Option(help="Comma-separated names, or all.")] = ALL,
    policy_command: Annotated[str | None, typer.Option(help="Also play this program, over stdin and stdout.")] = None,
    usage: Annotated[Path | None, typer.Option(help="Build a case: a usage history (Parquet or CSV).")] = None,
    offers: Annotated[Path | None, typer.Option(help="... offers with prices (Parquet or CSV).")] = None,
    spot: Annotated[Path | None, typer.Option(help="... a spot price history (Parquet or CSV).")] = None,
    availability: Annotated[Path | None, typer.Option(help="... how much spot could be had (Parquet or CSV).")] = None,
    risk: Annotated[float, typer.Option(callback=finite, min=0.0, max=0.5, help="... allowed shortfall.")] = 0.01,
    days: Annotated[int, typer.Option(min=1, max=366, help="... days to replay, the last of the history.")] = 14,
    metric: Annotated[str | None, typer.Option(help="... the column of the usage file.")] = None,
    per_shard: Annotated[
        float, typer.Option(callback=finite, help="... how much of the metric one shard serves.")
    ] = 1.0,
    vcpus: Annotated[float, typer.Option(callback=finite, min=0, help="... vCPUs of one shard.")] = 1.0,
    memory_gib: Annotated[float, typer.Option(callback=finite, min=0, help="... memory of one shard.")] = 4.0,
    regions: Annotated[str | None, typer.Option(help="... only these, comma-separated. Default: all.")] = None,
    case_file: Annotated[Path | None, typer.Option(help="... also write the case that was built (gzip).")] = None,
    seed: Annotated[int, typer.Option(help="Of whatever is drawn at random.")] = 0,
    engine: EngineChoice = Engine.LOCAL,
    workers: Workers = None,
    ray_address: RayAddress = None,
    output: Form = Output.TABLE,
    output_file: Annotated[Path | None, typer.Option(help="Also write the whole report as JSON.")] = None,
    html: Annotated[Path | None, typer.Option(help="Also write a page with plots.")] = None,
) -> None:
    """Play cases with policies: cost, shortfall against the risk, reclaims, moves, regret."""
    from lab.experiment import run_lab

    for path in (output_file, html, case_file):
        if path is not None:
            require_folder(path)
    chosen = _policies(policies)
    if usage is not None and (case or more):
        raise UsageError(
            "a case is given and one is to be built", why="--usage stands beside --case", next_step="give one of them"
        )
    if usage is not None:
        from lab.history_case import Market, Need, case_from_history

        built = case_from_history(
            Need(usage=usage, metric=metric, per_shard=per_shard, vcpus=vcpus, memory_gib=memory_gib),
            Market(offers=offers, spot=spot, availability=availability, regions=_split(regions)),
            risk=risk,
            days=days,
            seed=seed,
        )
        cases, notes = [built.case], built.notes
        if case_file is not None:
            built.write(case_file)
    else:
        cases, notes = _read([*(case or ()), *(more or ())]), ()
    say = plain(err())
    for note in notes:
        say(note)
    with spread_over(engine, workers, ray_address) as spread:
        report = run_lab(
            cases,
            chosen,
            seed=seed,
            command=policy_command,
            notes=notes,
            inputs=_inputs(context, chosen),
            spread=spread,
            tell=say,
        )
    if output_file is not None:
        with drafted(output_file) as draft:
            draft.write_text(report.model_dump_json(indent=1), encoding="utf-8")
    if html is not None:
        from lab.report import write_report

        write_report(html, report, tuple(cases))
        say(f"report written to {html}")
    if output is Output.JSON:
        print_json("lab", report)
    else:
        _print(report)


@app.command()
def play(
    policy: Annotated[str, typer.Option(help="Which policy answers.")] = "shardwright",
) -> None:
    """Play a capacity game that another program hosts: it writes to stdin, the answers go to stdout, a line each."""
    import sys

    from lab.play import play_messages
    from lab.policies.registry import policy_of

    def say(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    end = play_messages(sys.stdin, policy_of(policy), say)
    tell = plain(err())
    tell("the game was cut off before its end" if end is None else f"cost {end.cost}, short {end.shortfall_rate:.3%}")


@app.command()
def bound(more: More = None, case: Cases = None, output: Form = Output.TABLE) -> None:
    """The least that each case could have cost with all known beforehand: within its limits, and with nothing short."""
    from lab.bound import clairvoyant_bound

    found = []
    for each in _read([*(case or ()), *(more or ())]):
        found.append((clairvoyant_bound(each), clairvoyant_bound(each, shortfall=0.0)))
    if output is Output.JSON:
        print_json("bounds", [{"within_limits": within, "nothing_short": none} for within, none in found])
        return
    rows = [
        (within.case, within.fingerprint, f"{within.cost:.2f}", f"{none.cost:.2f}", f"{within.seconds:.1f}")
        for within, none in found
    ]
    columns = ("case", "inputs", "within its limits", "nothing short", "seconds")
    out().print(table("Clairvoyant bound, USD", columns, rows, right=(2, 3, 4)))


def _read(paths: Sequence[Path]) -> "list[Case]":
    from lab.case import read_case

    if not paths:
        raise UsageError(
            "there is nothing to play",
            why="no case was given",
            next_step="give --case FILE, or build one from --usage FILE and --offers FILE",
        )
    return [read_case(path) for path in paths]


def _inputs(context: typer.Context, chosen: tuple[str, ...]) -> "Inputs":
    """Of whatever the figures depend on: the options as they stand, and the files that they name."""
    from lab.inputs import recorded

    given = {**context.params, "policies": ",".join(chosen)}
    silent = NOT_RECORDED if given["usage"] is not None else NOT_RECORDED | BUILDING
    words: list[str] = []
    files: list[tuple[str, Path]] = []
    for parameter in context.command.params:
        name = str(parameter.name)
        option = "--case" if name == "more" else max(parameter.opts, key=len)
        values = given[name] if isinstance(given[name], list | tuple) else [given[name]]
        for value in values:
            if value is not None and name not in silent:
                words += [option, str(value)]
                files += [(option, value)] if isinstance(value, Path) else []
    return recorded(words, files)


def _policies(text: str) -> tuple[str, ...]:
    from lab.policies.registry import names, policy_of

    chosen = names() if text == ALL else tuple(dict.fromkeys(_split(text)))
    if not chosen:
        raise UsageError("no policy is to be played", why="--policies is empty", next_step="leave it out to play all")
    for name in chosen:
        policy_of(name)  # an unknown one is told before anything is played
    return chosen


def _split(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def _print(report: "LabReport") -> None:
    for each in report.cases:
        out().print(_case_table(each))
    rows = [
        (
            s.policy,
            _ratio(s.cost_to_bound),
            _ratio(s.cost_to_best),
            f"{s.kept} of {s.cases}",
        )
        for s in report.standings
    ]
    best = f"; best baseline of each case: {_ratio(report.best_baselines)} x bound"
    title = f"All cases, geometric means{best}; seed {report.seed}"
    out().print(table(title, ("policy", "/ bound", "/ best baseline", "risk kept"), rows, right=(1, 2, 3)))
    if report.inputs is not None:
        files = [(each.option, each.path, each.sha256[:16]) for each in report.inputs.files]
        out().print(table("Inputs", ("option", "file", "SHA-256 begins"), files))


def _case_table(report: "CaseReport") -> "Table":
    classes = [name for name in report.played[0].result.limits if name != "overall"]
    limits = report.played[0].result.limits
    headings = ("policy", "cost", "/ bound", "/ best", "sizing", "market", f"short ({limits['overall']:.1%})")
    of_class = tuple(f"{name} ({limits[name]:.1%})" for name in classes)
    columns = (*headings, *of_class, "risk", "reclaimed", "moved", "no answer")
    rows = [_row(report, each, classes) for each in report.played]
    title = f"{report.case}: {report.title}; bound {report.bound.cost:.2f} USD, inputs {report.fingerprint}"
    return table(title, columns, rows, right=range(1, len(columns)))


def _row(report: "CaseReport", each: "Played", classes: Sequence[str]) -> tuple[str, ...]:
    result, to_best = each.result, report.to_best(each.policy)
    return (
        each.policy,
        f"{result.cost:.2f}",
        _ratio(each.cost_to_bound),
        _ratio(to_best),
        f"{each.regret.sizing:.2f}",
        f"{each.regret.market:.2f}",
        f"{result.shortfall_rate:.2%}",
        *(f"{result.shortfall_by_class[name]:.2%}" for name in classes),
        "kept" if result.keeps_risk else "broken",
        str(result.preemptions),
        str(result.moves),
        str(result.malformed + result.late),
    )


def _ratio(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.3f}"
