"""Failures as the user meets them: what, why, the next command and the exit code. Never a traceback."""

import errno
import os
import sys
from collections.abc import Mapping, Sequence

from engine.cli.console import err
from engine.errors import (
    AuthenticationFailed,
    BadUsageData,
    ConcurrentUpdate,
    ConfigurationError,
    ExitCode,
    ProviderError,
    ShardwrightError,
    UsageError,
)

_COMMAND = "shardwright"
LOG_LEVEL = "SHARDWRIGHT_LOG_LEVEL"
_FULL = "free some space and run the same command again: what was recorded is kept, an interrupted round goes on"
_FOLDER = "name a folder that is there and can be written to (state.directory, --state, --output-file)"
_REMEDIES: Mapping[int, str] = {
    errno.ENOSPC: _FULL,
    errno.EFBIG: _FULL,
    errno.EDQUOT: _FULL,
    errno.EADDRINUSE: "end the process that has the port, or set control.port and control.web_port to 0 (any free one)",
    errno.EACCES: f"run as a user who may, or {_FOLDER}",
    errno.EPERM: f"run as a user who may, or {_FOLDER}",
    errno.EROFS: _FOLDER,
    errno.ENOENT: _FOLDER,
    errno.EEXIST: _FOLDER,
    errno.ENOTDIR: _FOLDER,
}
_STORE_REMEDIES = {
    "full": _FULL,
    "locked": "end the other command that uses this state, and run this one again",
    "readonly": _REMEDIES[errno.EACCES],
    "unable to open": _REMEDIES[errno.EACCES],
    "not a database": "the file is damaged: put a backup back, or name another state.directory",
    "malformed": "the file is damaged: put a backup back, or name another state.directory",
    "disk I/O": "look at the disk (df, dmesg), and run the same command again: what was recorded is kept",
}


_USUAL_STEPS: Sequence[tuple[type[ShardwrightError], str]] = (
    (ConfigurationError, "shardwright config check"),
    (BadUsageData, "shardwright forecast --usage FILE, which shows what is read of it"),
    (UsageError, "shardwright --help"),
    (AuthenticationFailed, "put the credentials right, then shardwright offers"),
    (ProviderError, "run the same command again once the provider answers; what was done is kept"),
    (ConcurrentUpdate, "run the same command again"),
    (ShardwrightError, "shardwright doctor"),
)
"""For an error that names no step of its own; the first kind that it is."""


def tell(error: ShardwrightError) -> ExitCode:
    """Print the error on stderr; the exit code it stands for."""
    console = err()
    console.print(f"error: {error.what}", style="bold red", soft_wrap=True)
    next_step = error.next_step or next(step for kind, step in _USUAL_STEPS if isinstance(error, kind))
    next_step += _of_the_same_file(next_step, sys.argv[1:])
    for label, text in (("why:  ", error.why), ("next: ", next_step)):
        if text:
            console.print(f"{label} {text}", soft_wrap=True)
    return error.exit_code


def _of_the_same_file(next_step: str, arguments: Sequence[str]) -> str:
    """The next command is meant for the configuration that this one was given; without it another would be found."""
    if f"{_COMMAND} " not in next_step or any(word in next_step for word in ("--config", "--help")):
        return ""
    for given, following in zip(arguments, (*arguments[1:], ""), strict=False):
        name, _, value = given.partition("=")
        if name == "--config" and (value or following):
            return f"   (with --config {value or following})"
    return ""


def translated(error: Exception) -> ShardwrightError:
    """What another library or the operating system raised, in our words."""
    return next((found for one in _chain(error) if (found := _known(one)) is not None), None) or _unexpected(error)


def _chain(error: BaseException) -> list[BaseException]:
    """The error and what it was raised from, outermost first."""
    found: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in found:
        found.append(one)
        one = one.__cause__
    return found


def _known(error: BaseException) -> ShardwrightError | None:
    if isinstance(error, ShardwrightError):
        return error
    if isinstance(error, OSError) and error.errno is not None:
        return _system_error(error)
    return _store_error(error)


def _system_error(error: OSError) -> ShardwrightError:
    where = f"{error.filename}: " if error.filename else ""
    return ShardwrightError(
        f"{where}{error.strerror or error}",
        why=f"the operating system refused ({errno.errorcode.get(error.errno or 0, 'no code')})",
        next_step=_REMEDIES.get(error.errno or 0, "shardwright doctor"),
    )


def _store_error(error: BaseException) -> ShardwrightError | None:
    """Of the control store; SQLAlchemy is looked at only where it is loaded already."""
    database = sys.modules.get("sqlalchemy.exc")
    if database is None or not isinstance(error, database.DBAPIError):
        return None
    reason = str(error.orig)
    remedy = next((text for sign, text in _STORE_REMEDIES.items() if sign in reason), "look at state.database_url")
    return ShardwrightError("the control store cannot be used", why=reason, next_step=remedy)


def _unexpected(error: Exception) -> ShardwrightError:
    reason = (str(error).strip() or "no message").splitlines()[0]
    return ShardwrightError(
        f"unexpected {type(error).__name__}: {reason}",
        why="this is a defect of shardwright, not of what you gave it",
        next_step=f"report it with what {LOG_LEVEL}=debug shows on the same command",
    )


def shows_tracebacks() -> bool:
    return os.environ.get(LOG_LEVEL, "").lower() == "debug"


def quiet_stdout() -> None:
    """The reader has gone (``| head``): whatever is still buffered goes nowhere, and nothing complains at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
