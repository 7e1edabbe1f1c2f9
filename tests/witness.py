"""Sees every guest of a fleet run and stand still, by a second monitor of each QEMU: no agent has a say in it.

QEMU takes one client a monitor, and that is the agent's; so the fleet's nodes find a QEMU that opens one more.
"""

import json
import select
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterable
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

from engine.model.value import Value

_SOCKET = "witness.sock"
_QEMU = "qemu-system-x86_64"
_LOOK_SECONDS = 0.01
_GREETING_SECONDS = 5.0


class Span(Value):
    """From one start of a guest to its stop, in seconds since the epoch by QEMU's own word; None: it runs."""

    node: str
    shard: str
    qemu: int
    """Which process: a number of the witness's own."""
    began: float
    ended: float | None = None


def overlaps(spans: Iterable[Span]) -> list[tuple[Span, Span]]:
    """Pairs of processes that ran one shard at the same time. Pure."""
    return [
        (one, other)
        for one, other in combinations(spans, 2)
        if (one.shard, one.qemu != other.qemu) == (other.shard, True)
        and one.began < (other.ended or float("inf"))
        and other.began < (one.ended or float("inf"))
    ]


def pauses(spans: Iterable[Span]) -> list[tuple[float, bool]]:
    """Between two spans of one shard, in order: how long nothing ran, and whether it went on in another process."""
    ordered = sorted(spans, key=lambda span: span.began)
    return [
        (later.began - (earlier.ended or later.began), later.qemu != earlier.qemu)
        for earlier, later in pairwise(ordered)
    ]


class WitnessedQemu:
    """A folder to be put first on a node's PATH."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="swq-"))
        self.folder.chmod(0o755)  # guests have users of their own
        real = shutil.which(_QEMU)
        wrapper = self.folder / _QEMU
        wrapper.write_text(f'#!/bin/sh\nexec {real} "$@" -qmp unix:{_SOCKET},server=on,wait=off\n')
        wrapper.chmod(0o755)

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


class _Seen:
    def __init__(self, link: socket.socket, node: str, shard: str, qemu: int) -> None:
        self.link, self.node, self.shard, self.qemu = link, node, shard, qemu
        self.pending = b""


class Witness:
    """Looks for guests under ``folders`` (by node: its agent's work folder) until closed."""

    def __init__(self, folders: dict[str, Path]) -> None:
        self._folders = folders
        self._lock = threading.Lock()
        self._spans: list[Span] = []
        self._seen: dict[tuple[Path, int], _Seen] = {}
        self._last = 0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="witness", daemon=True)
        self._thread.start()

    def spans(self, shard: str) -> list[Span]:
        with self._lock:
            return [span for span in self._spans if span.shard == shard]

    def running(self, shard: str) -> list[str]:
        """Nodes on which it runs now."""
        return [span.node for span in self.spans(shard) if span.ended is None]

    def close(self) -> None:
        self._closing.set()
        self._thread.join()
        for seen in self._seen.values():
            seen.link.close()

    def _watch(self) -> None:
        while not self._closing.is_set():
            self._find()
            by_link = {seen.link: key for key, seen in self._seen.items()}
            ready, _, _ = select.select(list(by_link), [], [], _LOOK_SECONDS)
            for link in ready:
                self._read(by_link[link])

    def _find(self) -> None:
        for node, folder in list(self._folders.items()):
            for path in folder.glob(f"shards/*/run/{_SOCKET}"):
                try:
                    key = (path, path.stat().st_ino)
                    if key not in self._seen:
                        self._meet(key, node)
                except (OSError, ValueError):
                    continue  # it has gone meanwhile, or does not listen yet

    def _meet(self, key: tuple[Path, int], node: str) -> None:
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            link.settimeout(_GREETING_SECONDS)
            link.connect(str(key[0]))
            stream = link.makefile("rb")
            stream.readline()
            link.sendall(b'{"execute": "qmp_capabilities"}\n')
            stream.readline()
            stream.close()
            link.sendall(b'{"execute": "query-status"}\n')
        except OSError:
            link.close()
            raise
        self._last += 1
        self._seen[key] = _Seen(link, node, key[0].parent.parent.name, self._last)

    def _read(self, key: tuple[Path, int]) -> None:
        seen = self._seen[key]
        try:
            data = seen.link.recv(65536)
        except OSError:
            data = b""
        if not data:
            self._note(seen, running=False, at=time.time())
            seen.link.close()
            del self._seen[key]
            return
        *lines, seen.pending = (seen.pending + data).split(b"\n")
        for line in filter(bytes.strip, lines):
            self._understand(seen, json.loads(line))

    def _understand(self, seen: _Seen, said: dict[str, Any]) -> None:
        if "running" in said.get("return", {}):
            self._note(seen, running=bool(said["return"]["running"]), at=time.time())
        elif said.get("event") in ("STOP", "RESUME"):
            at = said["timestamp"]
            self._note(seen, running=said["event"] == "RESUME", at=at["seconds"] + at["microseconds"] / 1e6)

    def _note(self, seen: _Seen, *, running: bool, at: float) -> None:
        with self._lock:
            mine = [index for index, span in enumerate(self._spans) if span.qemu == seen.qemu and span.ended is None]
            if running and not mine:
                self._spans.append(Span(node=seen.node, shard=seen.shard, qemu=seen.qemu, began=at))
            elif mine and not running:
                self._spans[mine[0]] = self._spans[mine[0]].model_copy(update={"ended": at})
