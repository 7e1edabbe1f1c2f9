"""What can be read off Pulumi's file backend without starting the engine: unfinished work and who holds the lock."""

import hashlib
import json
import shutil
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import psutil

from engine.errors import ConfigurationError, ShardwrightError
from engine.model.value import Utc, Value

PROJECT = "shardwright"
_ENGINE = "pulumi"
_START_SLACK_SECONDS = 5.0
"""A process's start is known to the second only, and an engine takes its lock within moments."""


class LockHolder(Value):
    """The engine that a lock file names."""

    stack: str
    pid: int
    host: str
    since: Utc | None = None
    """When it took the lock; None: the file does not say."""

    @property
    def here(self) -> bool:
        return self.host == socket.gethostname()

    @property
    def alive(self) -> bool:
        """On another machine nobody can tell from here: taken for alive."""
        return not self.here or self._works()

    def _works(self) -> bool:
        """That a process has its pid is not enough: a container that is started again deals the same small pids out."""
        try:
            process = psutil.Process(self.pid)
            if process.status() == psutil.STATUS_ZOMBIE or process.name() != _ENGINE:
                return False
            if any(word.rpartition("/")[2] == self.stack for word in process.cmdline()):
                return True
            # An engine that names no stack was started by hand, or has its pid from the one that took the lock.
            return self.since is None or process.create_time() < self.since.timestamp() + _START_SLACK_SECONDS
        except psutil.NoSuchProcess:
            return False
        except psutil.AccessDenied:
            return True


class StateFiles:
    """``state_url``: file://DIRECTORY."""

    def __init__(self, state_url: str) -> None:
        parts = urlsplit(state_url)
        if parts.scheme != "file" or not parts.path:
            raise ConfigurationError(
                f"pulumi.state_url: {state_url!r} is not file://DIRECTORY",
                why="recovery of an interrupted update reads the state and its locks",
            )
        self.folder = Path(unquote(f"{parts.netloc}{parts.path}"))
        # Pulumi's storage library writes each file at once but its attributes (``.attrs``) piece by piece: a kill in
        # between leaves a stack that cannot be opened any more ("failed to load checkpoint: EOF"). Without them it can.
        self.backend_url = f"{state_url}{'&' if parts.query else '?'}metadata=skip"
        """``state_url`` as the engine is to be given it."""

    def exists(self, stack: str) -> bool:
        return self._state(stack).exists()

    def interrupted(self, stack: str) -> bool:
        """Whether an update was begun that never wrote its end."""
        return self.damaged(stack) or bool(self.pending(stack)) or any(self._lock_files(stack))

    def damaged(self, stack: str) -> bool:
        """Whether the state was cut off in a write, as a full disk does; the engine cannot open the stack then."""
        state = self._state(stack)
        return state.exists() and not _is_whole(state)

    def mend(self, stack: str) -> None:
        """Put the engine's copy from before its last write back; what is missing in it shows as pending operations.

        Raises ShardwrightError when that copy is damaged, too.
        """
        state = self._state(stack)
        copy = state.with_name(f"{state.name}.bak")
        if not _is_whole(copy):
            raise ShardwrightError(
                f"the Pulumi state of {stack} is damaged",
                why=f"{state} and the copy beside it were cut off while they were written",
                next_step=f"put a checkpoint from {self.folder}/.pulumi/history or a backup of yours in its place",
            )
        fresh = state.with_name(f"{state.name}.new")
        shutil.copyfile(copy, fresh)
        fresh.replace(state)

    def pending(self, stack: str) -> list[Mapping[str, Any]]:
        """Pulumi's pending operations, as the state has them."""
        return list(self._latest(stack).get("pending_operations") or [])

    def outputs(self, stack: str) -> Mapping[str, Any]:
        """What the program exported at the end of the last update; secrets stay encrypted."""
        resources = self._latest(stack).get("resources") or []
        root: Mapping[str, Any] = next((one for one in resources if one["type"] == "pulumi:pulumi:Stack"), {})
        return root.get("outputs") or {}

    def locks(self, stack: str) -> list[LockHolder]:
        holders = []
        for path in self._lock_files(stack):
            try:
                lock = json.loads(path.read_bytes())
            except (FileNotFoundError, ValueError):
                continue  # released while we looked, or cut off as it was written
            since = _time(lock.get("timestamp"))
            holders.append(LockHolder(stack=stack, pid=int(lock["pid"]), host=str(lock["hostname"]), since=since))
        return holders

    def last_sign(self, stack: str) -> datetime:
        """When an engine last wrote about the stack: its lock, or the state, before and after every operation."""
        return datetime.fromtimestamp(max(map(_written_at, (*self._lock_files(stack), self._state(stack)))), UTC)

    def break_locks(self, stack: str) -> None:
        """Remove the locks of engines that have ended, also those that a full disk cut off: no engine gets past them.

        To be called when no engine works on the stack.
        """
        for path in self._lock_files(stack):
            path.unlink(missing_ok=True)

    def _lock_files(self, stack: str) -> list[Path]:
        return sorted((self.folder / ".pulumi" / "locks" / "organization" / PROJECT / stack).glob("*.json"))

    def _latest(self, stack: str) -> Mapping[str, Any]:
        try:
            document = json.loads(self._state(stack).read_bytes())
        except FileNotFoundError:
            return {}
        return (document.get("checkpoint") or {}).get("latest") or {}

    def _state(self, stack: str) -> Path:
        return self.folder / ".pulumi" / "stacks" / PROJECT / f"{stack}.json"


def mend_selection(home: Path, folder: Path) -> None:
    """Remove the engine's note of which stack is selected in ``folder``, should a full disk have cut it off.

    No command gets past it ("unable to read workspace settings"), and ours name their stack. ``home``: PULUMI_HOME.
    """
    project = hashlib.sha1(str(folder / "Pulumi.yaml").encode(), usedforsecurity=False).hexdigest()
    note = home / "workspaces" / f"{PROJECT}-{project}-workspace.json"
    if note.exists() and not _is_whole(note):
        note.unlink(missing_ok=True)


def _is_whole(path: Path) -> bool:
    try:
        json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return True


def _written_at(path: Path) -> float:
    """0.0: there is none (any more)."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _time(text: object) -> datetime | None:
    try:
        return datetime.fromisoformat(str(text)).astimezone(UTC)
    except ValueError:
        return None
