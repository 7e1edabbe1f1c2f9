"""The ``shardnet`` plugin of third-party networks, running beside the control plane."""

import select
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from engine.errors import MissingPart

_COMMAND = (sys.executable, "-m", "providers.network.plugin", "--with-parent")
_SECONDS = 30.0


@contextmanager
def network_plugin(command: Sequence[str] = _COMMAND, *, seconds: float = _SECONDS) -> Iterator[int]:
    """The port of one that runs while the context lasts. Raises MissingPart when it names none within ``seconds``."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        line = _first_line(process, seconds)
        if not line.strip().isdigit():
            raise MissingPart(
                "the shardnet plugin does not start",
                why=f"it said {line.strip()!r}" if line else f"it named no port within {seconds:g} s, or ended",
                next_step=" ".join(command),
            )
        yield int(line)
    finally:
        process.terminate()
        process.communicate(timeout=_SECONDS)


def _first_line(process: "subprocess.Popen[str]", seconds: float) -> str:
    """Nothing where it says nothing in time, or ends."""
    assert process.stdout is not None
    spoken, _, _ = select.select([process.stdout], [], [], seconds)
    return process.stdout.readline() if spoken else ""
