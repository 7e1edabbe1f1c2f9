"""What a report was made from, so that any of its figures can be had again."""

import shlex
from collections.abc import Iterable
from hashlib import file_digest
from importlib.metadata import version
from pathlib import Path

from engine.model.value import Value


class InputFile(Value):
    """``sha256``: hexadecimal, of the bytes as they lay there."""

    option: str
    path: str
    sha256: str


class Inputs(Value):
    """``arguments``: those of ``shardwright lab run`` that the figures depend on, defaults written out."""

    version: str
    arguments: tuple[str, ...]
    files: tuple[InputFile, ...]

    def command(self) -> str:
        return shlex.join(("shardwright", "lab", "run", *self.arguments))


def recorded(arguments: Iterable[str], files: Iterable[tuple[str, Path]]) -> Inputs:
    """``files``: each with the option that it was given with. They were read before, so they can be read."""
    return Inputs(
        version=version("shardwright"),
        arguments=tuple(arguments),
        files=tuple(InputFile(option=option, path=str(path), sha256=_digest(path)) for option, path in files),
    )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
