"""How the command talks: data on stdout, talk on stderr; ``--output json`` everywhere; NO_COLOR and pipes respected."""

import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from typing import Any

from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

SCHEMA_VERSION = 1


class Output(StrEnum):
    TABLE = "table"
    JSON = "json"


def out() -> Console:
    """For data. Wide when piped, so that no column is cut."""
    piped = not sys.stdout.isatty()
    return Console(
        width=200 if piped else None, highlight=False, soft_wrap=piped, color_system=None if no_color() else "auto"
    )


def err() -> Console:
    """For talk. Lines are left whole when piped."""
    piped = not sys.stderr.isatty()
    return Console(stderr=True, highlight=False, soft_wrap=piped, color_system=None if no_color() else "auto")


def no_color() -> bool:
    """NO_COLOR (or --no-color) asks for plain text: no colours, and no other escapes either."""
    return bool(os.environ.get("NO_COLOR"))


def plain(console: Console) -> Callable[[str], None]:
    """One unwrapped line each, whatever brackets it holds."""
    return lambda line: console.print(line, markup=False, soft_wrap=True)


def named(provider: str, reason: str) -> str:
    """The reason with its provider's name in front, once."""
    return reason if reason.startswith(provider) else f"{provider}: {reason}"


def print_json(kind: str, data: Any, **beside: Any) -> None:
    """One JSON document with a ``schema_version``; values go out as pydantic writes them. ``beside``: more keys."""
    document = {"schema_version": SCHEMA_VERSION, "kind": kind, "data": _plain(data)}
    document |= {key: _plain(value) for key, value in beside.items()}
    print(json.dumps(document, indent=2, default=str, ensure_ascii=False))


def _plain(data: Any) -> Any:
    if isinstance(data, BaseModel):
        return data.model_dump(mode="json")
    if isinstance(data, dict):
        return {str(key): _plain(value) for key, value in data.items()}
    if isinstance(data, Iterable) and not isinstance(data, str | bytes):
        return [_plain(item) for item in data]
    return data


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[int] = ()) -> Table:
    """A table with right-aligned columns by position."""
    result = Table(title=title, title_justify="left", header_style="bold", pad_edge=False)
    for position, column in enumerate(columns):
        result.add_column(column, justify="right" if position in right else "left", overflow="fold")
    for row in rows:
        result.add_row(*row)
    return result
