"""Asking a guest to measure itself, on its serial console: works without network."""

import asyncio
import os
from pathlib import Path

from agent.guest import CONSOLE_SOCKET, MEASURED, console
from engine.errors import NotFound

_POLL_SECONDS = 0.02
_GRACE_SECONDS = 20.0
"""On top of what was asked for: a busy host starts a guest's programs late."""


async def ask(run: Path, question: str, answer: str, seconds: float) -> int:
    """The number that the guest answers under the name ``answer``. Raises NotFound where it does not.

    ``run``: where the guest's QEMU works; ``question``: one line, see the image's init.
    """
    before = len(_said(run, answer))
    folder = os.open(run, os.O_RDONLY | os.O_DIRECTORY)
    try:  # through the descriptor: a socket's path may have 107 letters only
        _reader, writer = await asyncio.open_unix_connection(f"/proc/self/fd/{folder}/{CONSOLE_SOCKET}")
    except OSError as problem:
        raise NotFound("the guest has no console", why=str(problem)) from problem
    finally:
        os.close(folder)
    try:
        writer.write(f"{question}\n".encode())
        await writer.drain()
        for _ in range(int((seconds + _GRACE_SECONDS) / _POLL_SECONDS)):
            said = _said(run, answer)
            if len(said) > before:
                return said[-1]
            await asyncio.sleep(_POLL_SECONDS)
    except OSError as problem:
        raise NotFound("the guest's console is gone", why=str(problem)) from problem
    finally:
        writer.close()
    raise NotFound(f"the guest does not say its {answer}", why="its image may not measure itself")


def _said(run: Path, name: str) -> list[int]:
    return [int(value) for key, value in MEASURED.findall(console(run)) if key == name]
