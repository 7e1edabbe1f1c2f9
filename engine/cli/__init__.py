"""The command ``shardwright``: thin; the same verbs as the API, and no rules inside."""

import os
import sys
from contextlib import suppress

_CANCELLED = 130


def main() -> None:
    """Entry point: run, then turn errors of the vocabulary into a message and an exit code."""
    try:
        from engine.cli.main import run

        run()
    except KeyboardInterrupt:  # while it was still loading, or ending already
        pass
    except SystemExit as done:
        if done.code != _CANCELLED:
            raise
    # Worker threads may still wait for a provider. Leave without them: the next run takes up what they were at.
    with suppress(OSError):  # the reader may have gone (``| head``), or the disk be full
        sys.stdout.flush()
    os._exit(_CANCELLED)
