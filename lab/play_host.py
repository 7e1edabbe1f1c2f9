"""Plays with a policy that is another program: one JSON object a line over its standard input and output.

The program is bounded: a limit a step, one for ``init``, one in all. It is told ``end`` and killed with all it started
when it does not leave. What it writes to standard error goes to ours.
"""

import json
import os
import shlex
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, Queue
from threading import Thread
from time import monotonic
from types import TracebackType
from typing import IO, Self

from engine.errors import UsageError
from lab.wire import End, Init, Missed, Observe, Order, read_order, read_ready

MAX_LINE = 16 * 1024 * 1024
"""Bytes of one answer; more is malformed and no more of it is kept."""


@dataclass(frozen=True)
class Limits:
    """Seconds, as the rules of play give them (rule 11)."""

    step: float = 10.0
    init: float = 120.0
    whole: float = 3600.0
    leave: float = 5.0


class CommandPolicy:
    """A ``Policy`` and a context manager: the program runs inside the block. Not shared between threads."""

    def __init__(self, command: str, limits: Limits | None = None, clock: Callable[[], float] = monotonic) -> None:
        self._command = command
        self._limits = limits or Limits()
        self._clock = clock
        self._answers: Queue[bytes | None] = Queue(maxsize=1024)
        self._to_say: Queue[str | None] = Queue()
        self._late: set[int | None] = set()
        self._dead = False

    def __enter__(self) -> Self:
        try:
            words = shlex.split(self._command)
            self._process = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
            )
        except (OSError, ValueError, IndexError) as problem:
            raise UsageError(
                f"the policy {self._command!r} cannot be started",
                why=str(problem),
                next_step="give a command that reads observations and writes orders, such as 'python policy.py'",
            ) from problem
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._over = self._clock() + self._limits.whole
        self._threads = [
            Thread(target=_write, args=(self._process.stdin, self._to_say), daemon=True),
            Thread(target=_read, args=(self._process.stdout, self._answers), daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._to_say.put(None)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(0 if error is not None else self._limits.leave)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for thread, pipe in zip(self._threads, (self._process.stdin, self._process.stdout), strict=True):
            thread.join(1.0)
            # A pipe that a stray child still holds would block: it is left to the operating system.
            if pipe is not None and not thread.is_alive():
                with suppress(OSError, ValueError):
                    pipe.close()

    def start(self, init: Init) -> Missed | None:
        self._say(init.line())
        line = self._next(self._limits.init)
        if line is None:
            self._late.add(None)
            return Missed.LATE
        return None if read_ready(line) else Missed.MALFORMED

    def answer(self, observe: Observe) -> Order | Missed:
        self._say(observe.line())
        until = self._clock() + self._limits.step
        while (line := self._next(until - self._clock())) is not None:
            if not self._comes_after_all(line, observe.step):
                return read_order(line)
        self._late.add(observe.step)
        return Missed.LATE

    def end(self, end: End) -> None:
        self._say(end.line())

    def _say(self, line: str) -> None:
        if not self._dead:
            self._to_say.put(line)

    def _next(self, seconds: float) -> bytes | None:
        """None: nothing within the limit, or nobody left to say anything."""
        seconds = max(0.0, min(seconds, self._over - self._clock()))
        if self._dead:
            return None
        try:
            line = self._answers.get(timeout=seconds) if seconds else self._answers.get_nowait()
        except Empty:
            return None
        self._dead = line is None
        return line

    def _comes_after_all(self, line: bytes, now: int) -> bool:
        """An answer that was given up for late: its step tells."""
        if None in self._late and read_ready(line):
            self._late.discard(None)
            return True
        try:
            step = json.loads(line)["step"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return False
        return isinstance(step, int) and step != now and step in self._late


def _write(where: IO[bytes], lines: "Queue[str | None]") -> None:
    """Its own thread: a program that does not read must not stop the game."""
    try:
        while (line := lines.get()) is not None:
            where.write(line.encode() + b"\n")
            where.flush()
        where.close()
    except (OSError, ValueError):
        pass  # the program is gone; reading tells


def _read(where: IO[bytes], answers: "Queue[bytes | None]") -> None:
    try:
        while line := where.readline(MAX_LINE):
            complete = line.endswith(b"\n")
            while line and not line.endswith(b"\n"):
                line = where.readline(MAX_LINE)
            answers.put(line if complete else b"")
    except (OSError, ValueError):
        pass
    answers.put(None)
