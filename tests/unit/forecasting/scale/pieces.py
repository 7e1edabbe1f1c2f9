"""Pieces of work for the tests of the cluster, in a module of their own: every new worker loads it, so it is small."""

import os
import time
from pathlib import Path

from lab.experiment import Job, play_job
from lab.tally import Result

PATIENCE = 60
"""Seconds until a test gives up on what it waits for; nothing waits so long that goes well."""


def bad(kind: type[Exception], piece: int) -> int:
    raise kind(f"piece {piece}")


def played_once_killed(marker: Path, job: Job) -> Result:
    """The genuine work, but its first worker says who it is and goes no further."""
    try:
        with marker.open("x") as file:
            file.write(f"{os.getpid()}\n")
    except FileExistsError:
        return play_job(job).result
    time.sleep(PATIENCE)
    raise AssertionError("nobody killed this worker")
