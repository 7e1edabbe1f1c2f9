"""Files that a user asked for: written whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.errors import UsageError


def require_folder(path: Path) -> None:
    """UsageError when no file can be put there; asked before long work begins."""
    if not path.parent.is_dir() or path.is_dir():
        raise UsageError(
            f"{path} cannot be written",
            why="it is a folder" if path.is_dir() else f"there is no folder {path.parent}",
            next_step="give the path of a new file in an existing folder",
        )


@contextmanager
def drafted(path: Path) -> Iterator[Path]:
    """A draft to write to, beside ``path``; it takes that place when the block ends well, and is gone otherwise.

    UsageError when its folder does not exist.
    """
    require_folder(path)
    draft = path.with_name(f".{path.name}.draft")
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
