"""``shardwright network check | describe | keys | accept``"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli.configure import ConfigFile
from engine.cli.console import Output, err, out, plain, print_json, table
from engine.cli.numbers import finite
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
    patience: Annotated[
        float, typer.Option(callback=finite, min=0, help="seconds that one case may wait for an expiry")
    ] = 30.0,
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


@app.command("keys")
def keys(
    config: ConfigFile = None, output: Annotated[Output, typer.Option(help="table or json")] = Output.TABLE
) -> None:
    """Show the keys that networks sign their prices with, and which of them are believed. Changes nothing."""
    from engine.app.configured import load, open_store
    from engine.app.provider_keys import provider_keys

    configuration = load(config)
    with open_store(configuration) as store:
        found, problems = provider_keys(configuration, store)
    for problem in problems:
        plain(err())(problem)
    if output is Output.JSON:
        print_json("keys", found)
        return
    rows = [
        (
            _MARKS["passed" if one.taken else "failed"],
            one.provider,
            one.thumbprint,
            "yes" if one.published else "no",
            one.why,
        )
        for one in found
    ]
    out().print(table(f"{len(rows)} keys", ("", "network", "thumbprint", "published", "why"), rows))


@app.command("accept")
def accept(
    name: Annotated[str, typer.Argument(help="the network, as the configuration calls it")],
    key: Annotated[str, typer.Argument(help="thumbprint of the key that it publishes now")],
    config: ConfigFile = None,
) -> None:
    """Believe a network that changed its signing key: from now on prices signed with this key, and no other, count.

    Ask the network by another way than this one whether the change is its own.
    """
    from engine.app.configured import load, open_store
    from engine.app.provider_keys import accept_key

    configuration = load(config)
    with open_store(configuration) as store:
        before = accept_key(configuration, store, name, key)
    plain(err())(f"{name} is now known by {key}, before by {', '.join(sorted(before)) or 'none'}")


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
