import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from agent import console
from agent.guest import CONSOLE_LOG, CONSOLE_SOCKET
from engine.errors import NotFound

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def ask(folder: Path, serve: Handler, seconds: float = 1.0) -> int:
    async def run() -> int:
        server = await asyncio.start_unix_server(serve, folder / CONSOLE_SOCKET)
        try:
            return await console.ask(folder, "cpu 1", "cpu_rounds_per_second", seconds)
        finally:
            server.close()

    return asyncio.run(run())


def test_the_answer_is_the_one_after_the_question(tmp_path: Path) -> None:
    log = tmp_path / CONSOLE_LOG
    log.write_text("shardwright-measured cpu_rounds_per_second 1\nshardwright-measured read_iops 2\n")
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readline())
        with log.open("a") as out:
            out.write("cpu 1\nshardwright-measured read_iops 9\nshardwright-measured cpu_rounds_per_second 3\n")
        writer.close()

    assert ask(tmp_path, serve) == 3
    assert heard == [b"cpu 1\n"]


def test_a_guest_that_does_not_listen_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "_GRACE_SECONDS", 0.0)

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    with pytest.raises(NotFound, match="may not measure itself"):
        ask(tmp_path, serve, seconds=0.1)


def test_no_console_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no console"):
        asyncio.run(console.ask(tmp_path, "cpu 1", "cpu_rounds_per_second", 1.0))
