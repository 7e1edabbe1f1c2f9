"""How a command leaves: an end by signal is an interrupt, cleaning up is not disturbed, and children go with it."""

import contextlib
import os
import signal
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

import psutil

_CHILD_SECONDS = 3
_LAST_LOOKS, _LAST_LOOK_SECONDS = 20, 0.1
_INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM and a closed terminal end the command as Ctrl-C does.

    So does SIGINT where a shell put the command into the background, which ignores it from the start; a closed terminal
    does not where ``nohup`` said so.
    """

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    told_to_stay = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    with _handled([number for number in _INTERRUPTS if number != signal.SIGHUP or not told_to_stay], interrupt):
        yield


@contextmanager
def undisturbed() -> Iterator[None]:
    """A second Ctrl-C waits until what is in here has ended."""
    with _handled(_INTERRUPTS, signal.SIG_IGN):
        yield


def end_children(spared: Collection[int] = ()) -> bool:
    """This process's children (engines, plugins, clients) and theirs, but for the ``spared`` pids and their own.

    Whether there were any.
    """
    children = [child for child in psutil.Process().children(recursive=False) if child.pid not in spared]
    family = [*children, *(inner for child in children for inner in _descendants(child))]
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(family, timeout=_CHILD_SECONDS)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=_CHILD_SECONDS)
    return bool(family)


def leave(code: int) -> NoReturn:
    """At once, without worker threads: they may wait for engines that are gone.

    One that finds its engine gone may begin another, so this looks until none comes any more.
    """
    for _ in range(_LAST_LOOKS):
        if not end_children():
            break
        time.sleep(_LAST_LOOK_SECONDS)
    os._exit(code)


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        found: list[psutil.Process] = process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return found


@contextmanager
def _handled(numbers: Collection[signal.Signals], handler: "signal._HANDLER") -> Iterator[None]:
    """Only the main thread may say what signals do; anywhere else nothing changes."""
    before = {}
    with contextlib.suppress(ValueError):
        for number in numbers:
            before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
