"""The highest epoch that this node has obeyed for each shard: on disk before anything is done."""

import os
from pathlib import Path

from agent import fences
from engine.model.ids import ShardId


class EpochStore:
    """One small file a shard; survives the shard's release, so that a late command of an old owner is still refused."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, shard: ShardId) -> int:
        """0 for a shard that was never seen."""
        try:
            return int((self._folder / shard).read_text())
        except FileNotFoundError:
            return 0

    def accept(self, shard: ShardId, epoch: int) -> None:
        """Raise StaleEpoch for a lower epoch than the stored one; store a higher one, flushed, before returning."""
        stored = self.get(shard)
        fences.current(shard, stored, epoch)
        if epoch > stored:
            write_durably(self._folder / shard, f"{epoch}\n".encode())


def write_durably(path: Path, content: bytes) -> None:
    """Replace the file so that after a crash it holds the old or the new content, and after return the new."""
    put_in_place(written_beside(path, content), path)


def written_beside(path: Path, content: bytes) -> Path:
    """A file beside that one, flushed, to be put in its place: most of the time that replacing it takes."""
    scratch = path.with_name(f".{path.name}.new")
    handle = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(handle, content)
        os.fsync(handle)
    finally:
        os.close(handle)
    return scratch


def put_in_place(scratch: Path, path: Path) -> None:
    scratch.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
