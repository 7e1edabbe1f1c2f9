"""Files that a user asked for: written whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

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

    A device or a pipe (``/dev/stdout``) is written to as it is: nothing can take its place. Where ``path`` is a link,
    what it leads to is replaced. UsageError when its folder does not exist.
    """
    require_folder(path)
    if path.exists() and not path.is_file():
        yield path
        return
    place = path.resolve()
    require_folder(place)
    draft = place.with_name(f".{place.name}.draft")
    try:
        yield draft
        draft.replace(place)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def drafted_together(folder: Path) -> Iterator[Path]:
    """A draft of files that belong together; they take their places in ``folder`` when the block ends well.

    The folder is made where there is none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".draft-", dir=folder) as drafts:
        yield Path(drafts)
        for draft in sorted(Path(drafts).iterdir()):
            draft.replace((folder / draft.name).resolve())
