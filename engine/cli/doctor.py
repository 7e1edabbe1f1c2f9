"""``shardwright doctor``"""

from typing import Annotated

import typer

from engine.cli.console import Output, out, print_json, table
from engine.errors import ExitCode


def register(app: typer.Typer) -> None:
    app.command("doctor")(doctor)


def doctor(output: Annotated[Output, typer.Option(help="table or json")] = Output.TABLE) -> None:
    """List every part, its version, where it came from, and how to mend what is missing."""
    from engine.app.configured import part_checks
    from engine.doctor import examine, healthy

    parts = examine(part_checks())
    if output is Output.JSON:
        print_json("parts", parts)
    else:
        rows = [
            (
                "ok" if part.ok else "MISSING" if not part.needed_for else "missing",
                part.name,
                part.version,
                part.origin,
                part.needed_for or "everything",
                "" if part.ok else part.remedy,
            )
            for part in parts
        ]
        out().print(table("Parts", ("", "part", "version", "from", "needed for", "how to mend it"), rows))
    if not healthy(parts):
        raise typer.Exit(ExitCode.ERROR)
