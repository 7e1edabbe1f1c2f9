import asyncio
from collections.abc import Callable, Iterator, Sequence
from fcntl import LOCK_EX, flock

import pytest

from agent.config import AgentConfig
from agent.guest import GuestRecord
from agent.leases import LeaseKeeper
from agent.shards import ShardHost
from agent.watchdog import LOCK_NAME, Lease, boottime
from agent.wire import HeldShard, LeaseGrant
from engine.errors import ProviderUnavailable
from engine.model.ids import ShardId

S1 = ShardId("s1")
Leave = Callable[..., GuestRecord]


class Control:
    """Grants what it is told to; keeps what it was asked."""

    def __init__(self, *granted: ShardId) -> None:
        self.granted: Sequence[ShardId] = granted
        self.asked: list[tuple[HeldShard, ...]] = []
        self.silent = False

    async def __call__(self, held: tuple[HeldShard, ...]) -> LeaseGrant:
        self.asked.append(held)
        if self.silent:
            raise ProviderUnavailable("no answer")
        return LeaseGrant(shards=tuple(self.granted))


@pytest.fixture(autouse=True)
def watched(config: AgentConfig) -> Iterator[None]:
    """Somebody has the lock that a watchdog has: none is begun here."""
    folder = config.work / "leases"
    folder.mkdir()
    with (folder / LOCK_NAME).open("w") as lock:
        flock(lock, LOCK_EX)
        yield


def lease(keeper: LeaseKeeper) -> Lease:
    return Lease.read((keeper.folder / S1).read_text())


def test_a_grant_counts_from_when_it_was_asked_for(config: AgentConfig, left_behind: Leave) -> None:
    record, control = left_behind(), Control(S1)
    keeper = LeaseKeeper(ShardHost(config), control, 10.0)
    began = boottime()
    asyncio.run(keeper.renew())
    assert control.asked == [(HeldShard(shard=S1, epoch=0),)]
    mine = lease(keeper)
    assert (mine.pid, mine.start_ticks) == (record.pid, record.start_ticks)
    assert began + 10 - 0.001 <= mine.ends <= boottime() + 10.001  # it is written in milliseconds


def test_without_an_answer_or_with_a_refusal_the_lease_runs_out(config: AgentConfig, left_behind: Leave) -> None:
    left_behind()
    control = Control(S1)
    keeper = LeaseKeeper(ShardHost(config), control, 10.0)
    asyncio.run(keeper.renew())
    first = lease(keeper)
    control.granted = ()
    asyncio.run(keeper.renew())
    assert lease(keeper) == first
    control.silent = True
    with pytest.raises(ProviderUnavailable):
        asyncio.run(keeper.renew())
    assert lease(keeper) == first


def test_a_guest_that_was_started_just_now_has_a_lease_before_any_answer(
    config: AgentConfig, left_behind: Leave
) -> None:
    left_behind()
    control = Control()
    control.silent = True
    keeper = LeaseKeeper(ShardHost(config), control, 10.0)
    with pytest.raises(ProviderUnavailable):
        asyncio.run(keeper.renew())
    assert lease(keeper).ends > boottime() + 5


@pytest.mark.parametrize("stale", ["0 1 1\n", "half a li"])
def test_a_guest_begun_anew_is_not_left_with_the_lease_of_the_one_before(
    config: AgentConfig, left_behind: Leave, stale: str
) -> None:
    """A template's QEMU, or one that has died: the watchdog would stop neither it nor the one that runs now."""
    record, control = left_behind(), Control()
    control.silent = True
    keeper = LeaseKeeper(ShardHost(config), control, 10.0)
    (keeper.folder / S1).write_text(stale)
    with pytest.raises(ProviderUnavailable):
        asyncio.run(keeper.renew())
    mine = lease(keeper)
    assert (mine.pid, mine.start_ticks) == (record.pid, record.start_ticks)
    assert mine.ends > boottime() + 5


@pytest.mark.parametrize("gone", [{"incoming": True}, {"ceded_epoch": 2}])
def test_what_does_not_run_here_has_no_lease(config: AgentConfig, left_behind: Leave, gone: dict[str, object]) -> None:
    left_behind(**gone)
    control = Control(S1)
    keeper = LeaseKeeper(ShardHost(config), control, 10.0)
    (keeper.folder / S1).write_text("0 1 1")
    asyncio.run(keeper.renew())
    assert not (keeper.folder / S1).exists()
    assert control.asked == []
