"""``shardwright network check | describe``"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli.console import Output, err, out, plain, print_json, table
from engine.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from providers.network.conformance.base import CaseResult

app = typer.Typer(help="Third-party networks that speak the Open Capacity API.", no_args_is_help=True)
TOKEN_VARIABLE = "OPEN_CAPACITY_TOKEN"  # noqa: S105 (a variable's name)
_MARKS = {"passed": "✔", "failed": "✘", "skipped": "-"}


@app.command("check")
def check(
    url: Annotated[str, typer.Argument(help="base URL of the network")],
    token_file: Annotated[
        Path | None, typer.Option(help=f"file with the bearer token of a test tenant; else ${TOKEN_VARIABLE}")
    ] = None,
    ca_file: Annotated[Path | None, typer.Option(help="PEM file where its certificate is not a public one")] = None,
    patience: Annotated[float, typer.Option(min=0, help="seconds that one case may wait for an expiry")] = 30.0,
    examples: Annotated[
        int | None, typer.Option(min=0, help="fuzzing requests of each kind per operation; 0: no fuzzing")
    ] = None,
    output: Annotated[Output, typer.Option(help="table or json")] = Output.TABLE,
) -> None:
    """Judge a network by the conformance suite; exit 1 when a case fails.

    It buys, holds, starts, resizes and ends single units for moments: give it the token of a test tenant.
    """
    from engine.clock import SystemClock
    from providers.network.conformance.base import Outcome
    from providers.network.conformance.suite import check as judge

    token, say = _token(token_file), plain(err())

    def told(result: "CaseResult") -> None:
        say(f"{_MARKS[result.outcome.value]} {result.name}: {result.seen}")

    found = judge(
        url,
        token,
        clock=SystemClock(),
        patience=patience,
        ca_file=str(ca_file) if ca_file else None,
        examples=examples,
        say=told,
    )
    counts = ", ".join(f"{found.count(outcome)} {outcome.value}" for outcome in Outcome)
    if output is Output.JSON:
        print_json("conformance", found)
    else:
        rows = [(_MARKS[one.outcome.value], one.name, one.expected, one.seen) for one in found.results]
        out().print(table(f"{url}: {counts}", ("", "case", "expected", "seen"), rows))
    if not found.conforms:
        raise typer.Exit(ExitCode.ERROR)


@app.command("describe")
def describe() -> None:
    """Print the OpenAPI 3.1 description that a network implements, as JSON."""
    from providers.network.description import FROZEN

    out().file.write(FROZEN.read_text(encoding="utf-8"))


def _token(token_file: Path | None) -> str:
    if token_file is None:
        token = os.environ.get(TOKEN_VARIABLE, "")
        if not token:
            raise UsageError("no token", why="the suite asks as a tenant", next_step="give --token-file FILE")
        return token
    try:
        token = token_file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as problem:
        raise UsageError(f"{token_file} cannot be read", why=type(problem).__name__) from None
    if not token or not token.isascii() or not token.isprintable():
        raise UsageError(f"{token_file} holds no token", why="one line of printable ASCII is expected")
    return token
