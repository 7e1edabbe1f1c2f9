"""How the command talks: data on stdout, talk on stderr; ``--output json`` everywhere; NO_COLOR and pipes respected."""

import json
import os
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from textwrap import indent
from typing import Any, Literal

from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from rich.text import Text

SCHEMA_VERSION = 1
_LAYOUT = frozenset("\n\t")
_UNSHOWN = frozenset({"Cc", "Cs"})
"""Unicode's categories of what has no shape: controls (escapes begin with one), halves of a character."""
_TURNS = frozenset({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})
"""Bidirectional classes of what makes the text after it read the other way round."""


class Output(StrEnum):
    TABLE = "table"
    JSON = "json"


class _Plainspoken(Console):
    """Prints text as it is: names and reasons come from providers; none of it is markup, an emoji or an escape."""

    def __init__(self, *, stderr: bool) -> None:
        piped = not (sys.stderr if stderr else sys.stdout).isatty()
        super().__init__(
            stderr=stderr,
            width=200 if piped else None,
            soft_wrap=piped,
            color_system=None if no_color() else "auto",
            highlight=False,
            markup=False,
            emoji=False,
        )

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(harmless(text), **options)


def out() -> Console:
    """For data. Wide when piped, so that no column is cut."""
    return _Plainspoken(stderr=False)


def err() -> Console:
    """For talk. Wide when piped too, and lines are left whole."""
    return _Plainspoken(stderr=True)


def harmless(text: str) -> str:
    """Without characters that a terminal would obey instead of showing; a mark stands where one was."""
    if text.isprintable():
        return text
    return "".join("\N{REPLACEMENT CHARACTER}" if _steers(one) else one for one in text)


def _steers(one: str) -> bool:
    if one in _LAYOUT:
        return False
    return unicodedata.category(one) in _UNSHOWN or unicodedata.bidirectional(one) in _TURNS


def redraws(console: Console) -> bool:
    """Whether a line on it may change: on a terminal that can, unless plain text is asked for."""
    return console.is_terminal and not console.is_dumb_terminal and not no_color()


@contextmanager
def changing_line(console: Console, first: str) -> Iterator[Callable[[str], None] | None]:
    """Changes one line that stands while the context lasts; None where nothing may be drawn anew."""
    if not redraws(console):
        yield None
        return
    with console.status(Text(harmless(first))) as status:  # given a string, it would take it for markup
        yield lambda line: status.update(Text(harmless(line)))


def no_color() -> bool:
    """NO_COLOR (or --no-color) asks for plain text: no colours, and no other escapes either."""
    return bool(os.environ.get("NO_COLOR"))


def plain(console: Console) -> Callable[[str], None]:
    """One unwrapped line each, whatever brackets it holds."""
    return lambda line: console.print(line, soft_wrap=True)


def named(provider: str, reason: str) -> str:
    """The reason with its provider's name in front, once."""
    return reason if reason.startswith(provider) else f"{provider}: {reason}"


def print_json(kind: str, data: Any, **beside: Any) -> None:
    """One JSON document with a ``schema_version``; values go out as pydantic writes them. ``beside``: more keys."""
    document = {"schema_version": SCHEMA_VERSION, "kind": kind, "data": _plain(data)}
    document |= {key: _plain(value) for key, value in beside.items()}
    print(_dumped(document))


@contextmanager
def json_list(kind: str) -> Iterator[Callable[[Any], None]]:
    """The document of ``print_json`` for a list that grows: every item goes out at once, and none is kept.

    The context's end completes it. Without an item there is none.
    """
    before = f'{{\n  "schema_version": {SCHEMA_VERSION},\n  "kind": {json.dumps(kind)},\n  "data": [\n'
    begun = False

    def add(item: Any) -> None:
        nonlocal begun
        print(",\n" if begun else before, indent(_dumped(_plain(item)), "    "), sep="", end="", flush=True)
        begun = True

    try:
        yield add
    finally:
        if begun:
            print("\n  ]\n}")


def _dumped(plain_data: Any) -> str:
    return json.dumps(plain_data, indent=2, default=str, ensure_ascii=False)


def _plain(data: Any) -> Any:
    if isinstance(data, BaseModel):
        return data.model_dump(mode="json")
    if isinstance(data, dict):
        return {str(key): _plain(value) for key, value in data.items()}
    if isinstance(data, Iterable) and not isinstance(data, str | bytes):
        return [_plain(item) for item in data]
    return data


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[int] = ()) -> Table:
    """A table with right-aligned columns by position. Cells are shown as they are, whatever console prints it."""
    result = Table(
        title=Text(harmless(title), "table.title"), title_justify="left", header_style="bold", pad_edge=False
    )
    for position, column in enumerate(columns):
        justify: Literal["left", "right"] = "right" if position in right else "left"
        result.add_column(Text(harmless(column)), justify=justify, overflow="fold")
    for row in rows:
        result.add_row(*(Text(harmless(cell)) for cell in row))
    return result
