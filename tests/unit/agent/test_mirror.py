"""How a mirror ends, in a real QEMU: only one that ended well has made both disks equal."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent import mirror
from agent.monitor import poll
from agent.node_guest import Guest
from engine.errors import MoveFailed
from tests.unit.agent.paused_qemu import paused_qemu

OTHER = {"driver": "file", "filename": "../other.raw"}
BROKEN = {"driver": "blkdebug", "image": OTHER, "inject-error": [{"event": "none", "iotype": "flush", "errno": 28}]}


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Guest]:
    with paused_qemu(tmp_path) as started:
        (tmp_path / "disk.raw").write_bytes(bytes(range(256)) * 4096)
        (tmp_path / "other.raw").write_bytes(bytes(1 << 20))
        yield started


async def begin(here: Guest, other: dict[str, Any], **more: int) -> None:
    """Beside this very QEMU: the other side of the connection is tests/e2e/test_move_qemu.py's."""
    await here.monitor.execute("blockdev-add", other | {"node-name": "target-move"})
    job = {"job-id": mirror.JOB, "device": "d0", "target": "target-move", "sync": "full"} | more
    await here.monitor.execute("blockdev-mirror", job | {"auto-dismiss": False, "copy-mode": "write-blocking"})


async def jobs(here: Guest) -> list[dict[str, Any]]:
    said: list[dict[str, Any]] = await here.monitor.execute("query-block-jobs")
    return said


async def nodes(here: Guest) -> set[str]:
    return {node["node-name"] for node in await here.monitor.execute("query-named-block-nodes")}


def test_one_that_is_ended_has_made_both_disks_equal_and_may_begin_anew(here: Guest) -> None:
    async def ready() -> bool:
        job = mirror.under_way(await jobs(here))
        return bool(job and job["ready"])

    async def go() -> None:
        for _ in range(2):
            here.mirrored = False
            await begin(here, OTHER)
            await poll(ready, seconds=10)
            await mirror.end(here)
            assert here.mirrored
            assert mirror.under_way(await jobs(here)) is None
            assert (here.folder / "other.raw").read_bytes() == (here.folder / "disk.raw").read_bytes()
            await mirror.forget(here)
            assert (await jobs(here), "target-move" in await nodes(here)) == ([], False)

    asyncio.run(go())


def test_one_that_broke_is_never_taken_for_one_that_was_ended(here: Guest) -> None:
    async def over() -> bool:
        return mirror.under_way(await jobs(here)) is None

    async def go() -> None:
        await begin(here, BROKEN)
        await poll(over, seconds=10)
        with pytest.raises(MoveFailed, match="broke off") as broken:
            await mirror.end(here)
        assert "No space left" in broken.value.why
        assert not here.mirrored
        with pytest.raises(MoveFailed, match="broke off"):
            await mirror.end(here)
        await mirror.give_up(here)
        assert (await jobs(here), "target-move" in await nodes(here)) == ([], False)

    asyncio.run(go())


def test_one_that_is_ended_before_all_is_there_has_not_made_them_equal(here: Guest) -> None:
    async def go() -> None:
        await begin(here, OTHER, speed=1)
        with pytest.raises(MoveFailed, match="broke off"):
            await mirror.end(here)
        assert not here.mirrored

    asyncio.run(go())


def test_one_that_is_given_up_leaves_nothing(here: Guest) -> None:
    async def go() -> None:
        await begin(here, OTHER)
        for _ in range(2):
            await mirror.give_up(here)
            assert (await jobs(here), "target-move" in await nodes(here)) == ([], False)
        assert not here.mirrored

    asyncio.run(go())


def test_one_that_an_older_agent_began_is_gone_when_it_has_ended(here: Guest) -> None:
    """QEMU dismisses it by itself: no job and no error is its end."""

    async def go() -> None:
        assert await jobs(here) == []
        await mirror.end(here)
        assert here.mirrored

    asyncio.run(go())
