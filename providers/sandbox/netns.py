"""Network namespaces: batches of ``ip`` and ``bridge``, and sockets that live in another namespace."""

import ctypes
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from engine.errors import MissingPart, ShardwrightError

NAMESPACES = Path("/run/netns")
_CLONE_NEWNET = 0x40000000
_COMMAND_SECONDS = 10
Result = TypeVar("Result")


class NetworkSetupFailed(ShardwrightError):
    """The kernel refused a namespace, link, address or route."""


def batch(tool: str, lines: Sequence[str], *, namespace: str | None = None, force: bool = False) -> None:
    """Run lines of ``ip`` or ``bridge`` in one process; ``force`` goes on past lines that fail."""
    if not lines:
        return
    command = [tool, *(["-n", namespace] if namespace else []), *(["-force"] if force else []), "-batch", "-"]
    try:
        done = subprocess.run(
            command,
            input="\n".join(lines) + "\n",
            capture_output=True,
            text=True,
            timeout=_COMMAND_SECONDS,
            check=False,
        )
    except FileNotFoundError as error:
        raise MissingPart(f"{tool} is not installed", next_step="install iproute2") from error
    if done.returncode != 0 and not force:
        raise NetworkSetupFailed(
            f"{tool} failed in namespace {namespace or 'root'}", why=done.stderr.strip() or f"exit {done.returncode}"
        )


def query(*arguments: str) -> str:
    """The output of one ``ip`` command."""
    try:
        done = subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=False)
    except FileNotFoundError as error:
        raise MissingPart("ip is not installed", next_step="install iproute2") from error
    if done.returncode != 0:
        raise NetworkSetupFailed(f"ip {' '.join(arguments)} failed", why=done.stderr.strip())
    return done.stdout


def inside(namespace: str, act: Callable[[], Result]) -> Result:
    """Run ``act`` in a thread of its own that has entered the namespace; sockets that it opens stay there."""
    outcome: list[Result] = []
    problem: list[BaseException] = []

    def run() -> None:
        try:
            _enter(namespace)
            outcome.append(act())
        except BaseException as error:  # handed to the caller's thread below
            problem.append(error)

    thread = threading.Thread(target=run, name=f"in-{namespace}")
    thread.start()
    thread.join()
    if problem:
        raise problem[0]
    return outcome[0]


def _enter(namespace: str) -> None:
    handle = os.open(NAMESPACES / namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(handle, _CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise NetworkSetupFailed(f"cannot enter namespace {namespace}", why=os.strerror(number))
    finally:
        os.close(handle)


def listen(address: str, port: int, *, namespace: str | None = None) -> socket.socket:
    """A listening TCP socket, in ``namespace`` where one is given. Raises OSError when the port is taken."""

    def open_it() -> socket.socket:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((address, port))
            listener.listen(64)
        except OSError:
            listener.close()
            raise
        return listener

    return open_it() if namespace is None else inside(namespace, open_it)


def quiet(namespace: str) -> None:
    """No IPv6 chatter on the namespace's links: nothing in the sandbox speaks it."""

    def write() -> None:
        for scope in ("all", "default"):
            switch = Path(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6")
            if switch.exists():
                switch.write_text("1")

    inside(namespace, write)
