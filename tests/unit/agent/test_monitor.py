import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.monitor import SOCKET_NAME, GuestRefused, Monitor, poll
from engine.errors import MoveFailed, NotFound

_GREETING = {"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}, "package": ""}, "capabilities": []}}


@asynccontextmanager
async def qemu(folder: Path, answer: Callable[[dict[str, Any]], dict[str, Any] | None]) -> AsyncIterator[None]:
    """A QMP server in ``folder``; ``answer`` gives the reply to a command and the event after it, None hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(json.dumps(_GREETING).encode() + b"\r\n")
        while text := await reader.read(65536):
            command = json.loads(text)  # one at a time: the client waits for each answer; no line ends
            said = {"return": {}} if command["execute"] == "qmp_capabilities" else answer(command)
            if said is None:
                break
            after = said.pop("after", None)
            tagged = said | {"id": command["id"]} if "id" in command else said
            for line in filter(None, (tagged, after)):
                writer.write(json.dumps(line).encode() + b"\r\n")
            await writer.drain()
        writer.close()

    handle = os.open(folder, os.O_PATH)
    server = await asyncio.start_unix_server(serve, f"/proc/self/fd/{handle}/{SOCKET_NAME}")
    try:
        yield
    finally:
        server.close()
        os.close(handle)


def run(
    folder: Path, answer: Callable[[dict[str, Any]], dict[str, Any] | None], act: Callable[[Monitor], Awaitable[Any]]
) -> Any:
    async def whole() -> Any:
        async with qemu(folder, answer):
            monitor = Monitor(folder)
            try:
                return await act(monitor)
            finally:
                await monitor.close()

    return asyncio.run(whole())


@pytest.fixture
def deep(tmp_path: Path) -> Path:
    """A folder whose path is longer than a socket's may be."""
    folder = tmp_path / ("d" * 60) / ("e" * 60)
    folder.mkdir(parents=True)
    return folder


def test_a_command_is_answered_however_long_the_path(deep: Path) -> None:
    said = run(deep, lambda _command: {"return": {"running": True}}, lambda qmp: qmp.execute("query-status"))
    assert said == {"running": True}


def test_a_refusal_carries_what_qemu_said(deep: Path) -> None:
    refuse = {"error": {"class": "GenericError", "desc": "Need a root block node"}}
    with pytest.raises(GuestRefused, match="Need a root block node"):
        run(deep, lambda _command: refuse, lambda qmp: qmp.execute("blockdev-mirror", {"device": "d0"}))


def test_a_qemu_that_hangs_up_is_gone_and_asked_anew_the_next_time(deep: Path) -> None:
    replies: list[dict[str, Any] | None] = [None, {"return": {"again": True}}]

    async def twice(qmp: Monitor) -> Any:
        with pytest.raises(NotFound):
            await qmp.execute("query-status")
        return await qmp.execute("query-status")

    assert run(deep, lambda _command: replies.pop(0), twice) == {"again": True}


def test_no_socket_means_no_guest(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(NotFound):
            asyncio.run(Monitor(folder).execute("query-status"))


def test_polling_ends() -> None:
    async def never() -> bool:
        return False

    with pytest.raises(MoveFailed, match="the move took longer than 0 s"):
        asyncio.run(poll(never, seconds=0, what="the move"))


def test_polling_looks_at_once_when_qemu_tells_of_something(deep: Path) -> None:
    stopped = {"event": "STOP", "timestamp": {"seconds": 1, "microseconds": 2}}
    replies: list[dict[str, Any] | None] = [{"return": {"running": True}, "after": stopped}, {"return": {}}]

    async def wait(qmp: Monitor) -> Any:
        async def paused() -> bool:
            return "running" not in await qmp.execute("query-status")

        return await asyncio.wait_for(poll(paused, seconds=60, every=60, woken_by=qmp), 10)

    assert run(deep, lambda _command: replies.pop(0), wait)
