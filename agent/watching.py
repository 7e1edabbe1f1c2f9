"""Sees to it that a watchdog enforces the run leases, and does its work while none can be had.

A lease that nobody enforces is worth nothing: the control plane starts the shard elsewhere when it has ended, and this
node's guest would run on.
"""

import asyncio
import logging
import subprocess
import sys
import time
from pathlib import Path

from agent.watchdog import EVERY_SECONDS, boottime, enforce, served
from engine.errors import MissingPart

_START_SECONDS = 5.0
"""For a watchdog to begin."""
_LOG = logging.getLogger("agent.watching")


class Watch:
    """Over one folder of leases; ``log`` is where its watchdog writes."""

    def __init__(self, folder: Path, log: Path) -> None:
        self._folder, self._log = folder, log
        self._begun: subprocess.Popen[bytes] | None = None
        """The last one that this agent has begun."""
        self._watched = False
        """There was a watchdog when this agent looked last."""

    async def require(self) -> None:
        """A watchdog runs on return: one that has died is begun anew. Raises MissingPart where none can be had."""
        try:
            there = served(self._folder) or await self._start()
        except OSError as problem:
            self._watched = False
            raise MissingPart("no watchdog enforces the run leases", why=str(problem)) from problem
        self._watched = there
        if not there:
            raise MissingPart(
                "no watchdog enforces the run leases",
                why=f"none has begun within {_START_SECONDS:g} s", next_step=f"look into {self._log}",
            )  # fmt: skip

    async def rest(self, seconds: float) -> None:
        """Where there is no watchdog, its work is done here meanwhile."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self._watched:
                await asyncio.sleep(left)
                continue
            for shard, what in enforce(self._folder, boottime()).items():
                _LOG.warning("shard %s %s by the agent: there is no watchdog", shard, what)
            await asyncio.sleep(min(left, EVERY_SECONDS))

    async def _start(self) -> bool:
        """Whether it has begun."""
        if self._watched:
            _LOG.warning("the watchdog of the run leases has died: another is started")
        self._watched = False
        self._launch()
        began = time.monotonic()
        while not served(self._folder):
            if time.monotonic() - began > _START_SECONDS:
                return False
            await self.rest(EVERY_SECONDS)
        return True

    def _launch(self) -> None:
        """In a session of its own: it outlives the agent, as the guests do. One that is there already stays."""
        if self._begun is not None:
            self._begun.poll()  # or what is left of it would stay in the process table
        with self._log.open("ab") as log:
            self._begun = subprocess.Popen(
                [sys.executable, "-m", "agent.watchdog", str(self._folder)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
