import asyncio
import subprocess
import sys
import threading

import pytest

from agent.detached import Detached

ENDLESS = """
import asyncio, threading
from agent.detached import Detached

async def go():
    begun = threading.Event()
    def act():
        begun.set()
        threading.Event().wait(600)
    task = asyncio.create_task(Detached(1, "work").run(act))
    await asyncio.to_thread(begun.wait)
    print("ends", flush=True)

asyncio.run(go())
"""


def test_what_it_returns_and_raises_comes_back() -> None:
    def broken() -> int:
        raise OSError("no route")

    async def go() -> int:
        detached = Detached(2, "work")
        with pytest.raises(OSError, match="no route"):
            await detached.run(broken)
        return await detached.run(lambda: 7)

    assert asyncio.run(go()) == 7


@pytest.mark.parametrize("odd", [SystemExit(3), KeyboardInterrupt(), StopIteration(), asyncio.CancelledError()])
def test_nobody_waits_for_ever_whatever_it_raises(odd: BaseException) -> None:
    def broken() -> None:
        raise odd

    async def go() -> None:
        with pytest.raises(RuntimeError, match=type(odd).__name__):
            await asyncio.wait_for(Detached(1, "work").run(broken), 20)

    asyncio.run(go())


def test_no_more_than_so_many_at_a_time_and_the_others_in_their_turn() -> None:
    both, inside, most = threading.Barrier(2), 0, 0
    lock = threading.Lock()

    def act() -> None:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        both.wait(20)
        with lock:
            inside -= 1

    async def go() -> None:
        detached = Detached(2, "work")
        await asyncio.gather(*(detached.run(act) for _ in range(6)))

    asyncio.run(go())
    assert (most, inside) == (2, 0)


def test_one_that_is_given_up_gives_its_place_away_and_harms_nobody_when_it_ends() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def act() -> str:
        begun.set()
        go_on.wait(20)
        return "late"

    async def go() -> str:
        detached = Detached(1, "work")
        first = asyncio.create_task(detached.run(act))
        await asyncio.to_thread(begun.wait, 20)
        first.cancel()
        await asyncio.wait([first])
        second = await detached.run(lambda: "second")
        go_on.set()
        return second

    assert asyncio.run(go()) == "second"


def test_a_process_ends_though_something_is_still_waited_for() -> None:
    done = subprocess.run([sys.executable, "-c", ENDLESS], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "ends\n"
    assert done.stderr == ""
