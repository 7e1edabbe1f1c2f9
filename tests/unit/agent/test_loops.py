import asyncio

import pytest

from agent import loops


def test_work_that_fails_is_logged_and_begun_again_until_it_is_done(caplog: pytest.LogCaptureFixture) -> None:
    problems = [OSError("the disk is full"), ValueError("nobody thought of that")]

    async def work() -> None:
        if problems:
            raise problems.pop(0)

    async def go() -> None:
        await loops.begin("the work", work, pause_seconds=0)

    asyncio.run(asyncio.wait_for(go(), 10))
    assert problems == []
    assert caplog.text.count("the work failed, and is begun again") == 2
    assert "the disk is full" in caplog.text


def test_all_are_over_at_the_end_also_one_that_fails_in_ending() -> None:
    over: list[str] = []

    async def endless() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            over.append("endless")

    async def ends_badly() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            over.append("badly")
            raise OSError("cannot close")

    async def go() -> None:
        tasks = [loops.begin("bad", ends_badly, pause_seconds=0), loops.begin("good", endless, pause_seconds=0)]
        await asyncio.sleep(0)
        await loops.end(tasks)
        assert all(task.done() for task in tasks)

    asyncio.run(asyncio.wait_for(go(), 10))
    assert sorted(over) == ["badly", "endless"]
