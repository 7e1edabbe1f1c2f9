"""The command under test: as its own process, or inside this one (which spares the seconds that its libraries take)."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

EXECUTABLE = Path(sys.executable).with_name("shardwright")
NOBODY = ("unshare", "--user", "--map-user=65534", "--map-group=65534")
"""In front of a command: in a user namespace of its own it is nobody and has no capability."""


@dataclass(frozen=True)
class Told:
    """What the command said, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """Of ``--output json``: stdout must be one document and nothing else."""
        document = json.loads(self.out)
        assert document["schema_version"] == 1
        return document["data"]

    def refused(self, code: int, *said: str) -> None:
        """An error: its code, what, why and the next command, no traceback, and nothing on stdout."""
        assert self.code == code, self.err
        assert "Traceback" not in self.err
        assert "error: " in self.err, self.err
        assert "next:  " in self.err, self.err
        for text in said:
            assert text in self.err, f"{text!r} is not in:\n{self.err}"
        assert self.out == ""


class InProcess:
    """``shardwright ARGUMENTS`` by way of its entry point, with captured output."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd

    def __call__(self, *arguments: object) -> Told:
        import structlog

        from engine.cli.main import run

        before = sys.argv
        self._capfd.readouterr()
        try:
            sys.argv = ["shardwright", *(str(argument) for argument in arguments)]
            with pytest.raises(SystemExit) as ended:
                run()
        finally:
            sys.argv = before
            structlog.reset_defaults()  # it logs to a stream that ends with this test
            logging.getLogger("dbos").handlers.clear()  # ... and so do they
        out, err = self._capfd.readouterr()
        return Told(int(ended.value.code or 0), out, err)


def shardwright(
    *arguments: object,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    wrapper: tuple[str, ...] = (),
    timeout_seconds: float = 120.0,
) -> Told:
    """As its own process; ``wrapper`` is put in front of the command line."""
    command = [*wrapper, str(EXECUTABLE), *(str(argument) for argument in arguments)]
    done = subprocess.run(
        command,
        env=dict(os.environ) | dict(environment or {}),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_seconds,
        check=False,
    )
    return Told(done.returncode, done.stdout, done.stderr)
