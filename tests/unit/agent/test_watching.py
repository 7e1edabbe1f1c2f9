"""Real watchdogs, killed by their process number."""

import asyncio
import logging
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent import processes, watching
from agent.config import AgentConfig
from agent.guest import GuestRecord
from agent.leases import LeaseKeeper
from agent.shards import ShardHost
from agent.watchdog import EARLY_SECONDS, served
from agent.wire import HeldShard, LeaseGrant
from engine.errors import MissingPart
from engine.model.ids import ShardId

S1 = ShardId("s1")
Leave = Callable[..., GuestRecord]


class Control:
    """Grants everything; counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    async def __call__(self, held: tuple[HeldShard, ...]) -> LeaseGrant:
        self.asked += 1
        return LeaseGrant(shards=tuple(one.shard for one in held))


@pytest.fixture
def folder(config: AgentConfig) -> Iterator[Path]:
    """A watchdog of it ends with the test: its folder goes."""
    folder = config.work / "leases"
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
    end = time.monotonic() + 10
    while watchdogs(folder):
        assert time.monotonic() < end, "a watchdog is left"
        time.sleep(0.02)


def no_watchdog_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """What should be one ends at once. Guests are left behind before: they are started in the same way."""
    monkeypatch.setattr(sys, "executable", "/bin/false")
    monkeypatch.setattr(watching, "_START_SECONDS", 0.3)


def watchdogs(folder: Path) -> list[int]:
    """Their process numbers; one that is dead has no command line."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"agent.watchdog" in words and str(folder).encode() in words:
            found.append(int(process.name))
    return found


def kill_watchdog(folder: Path) -> int:
    (pid,) = watchdogs(folder)
    os.kill(pid, signal.SIGKILL)
    end = time.monotonic() + 10
    while served(folder):
        assert time.monotonic() < end
        time.sleep(0.01)
    return pid


def state(record: GuestRecord) -> str:
    found = processes.look(record.pid)
    return "" if found is None else found[0]


async def until(check: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not check():
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


def test_a_watchdog_that_was_killed_is_begun_anew_before_leases_are_renewed(
    config: AgentConfig, left_behind: Leave, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    left_behind()
    control = Control()
    keeper = LeaseKeeper(ShardHost(config), control, 60.0)

    async def play() -> None:
        await keeper.renew()
        assert served(folder)
        assert not caplog.records, "the first one is no news"
        first = kill_watchdog(folder)
        before = (folder / S1).read_text()
        await keeper.renew()
        assert served(folder)
        assert watchdogs(folder) != [first]
        assert (folder / S1).read_text() != before

    with caplog.at_level(logging.WARNING):
        asyncio.run(play())
    assert "the watchdog of the run leases has died" in caplog.text
    assert control.asked == 2


def test_the_agent_begins_no_second_one(config: AgentConfig, folder: Path) -> None:
    async def play() -> list[int]:
        await LeaseKeeper(ShardHost(config), Control(), 60.0).renew()
        first = watchdogs(folder)
        await LeaseKeeper(ShardHost(config), Control(), 60.0).renew()  # the agent's next life
        assert watchdogs(folder) == first
        return first

    assert len(asyncio.run(play())) == 1


def test_without_a_watchdog_no_lease_is_renewed(
    config: AgentConfig, left_behind: Leave, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_behind()
    no_watchdog_begins(monkeypatch)
    control = Control()
    keeper = LeaseKeeper(ShardHost(config), control, 60.0)
    for _ in range(2):
        with pytest.raises(MissingPart, match="no watchdog"):
            asyncio.run(keeper.renew())
    assert control.asked == 0
    assert (folder / S1).exists(), "what a start has granted counts"


def test_a_system_that_starts_no_process_renews_no_lease(
    config: AgentConfig, left_behind: Leave, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_behind()
    monkeypatch.setattr(sys, "executable", str(folder / "missing"))
    with pytest.raises(MissingPart, match="no watchdog"):
        asyncio.run(LeaseKeeper(ShardHost(config), Control(), 60.0).renew())


def test_without_a_watchdog_the_agent_stops_guests_itself_and_lets_them_go_on_once_there_is_one(
    config: AgentConfig, left_behind: Leave, folder: Path, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    record, control = left_behind(), Control()
    no_watchdog_begins(monkeypatch)
    keeper = LeaseKeeper(ShardHost(config), control, EARLY_SECONDS + 1.0)

    async def play() -> None:
        keeping = asyncio.create_task(keeper.keep())
        await until(lambda: state(record) == "T")
        assert control.asked == 0
        monkeypatch.undo()
        await until(lambda: state(record) != "T")
        assert served(folder)
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)

    with caplog.at_level(logging.WARNING):
        asyncio.run(play())
    assert caplog.text.count("cannot renew run leases: no watchdog") == 1
    assert "shard s1 stopped by the agent" in caplog.text
