import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.config import AgentConfig
from agent.guest import GuestRecord, alive
from agent.shards import ShardHost
from agent.wire import GuestState
from engine.errors import InsufficientCapacity, NotFound, StaleEpoch
from engine.model.capacity import Resources
from engine.model.ids import ShardId

S1 = ShardId("s1")
Leave = Callable[..., GuestRecord]


def test_a_guest_that_lives_is_found_again(config: AgentConfig, left_behind: Leave) -> None:
    record = left_behind()
    host = ShardHost(config)
    assert host.guest(S1).record == record
    assert host.guest(S1).alive
    assert host.reserved() == record.resources


def test_a_guest_that_died_meanwhile_is_known_as_dead(config: AgentConfig, left_behind: Leave) -> None:
    left_behind(alive=False)
    host = ShardHost(config)
    assert asyncio.run(host.status(S1)).state is GuestState.DEAD


def test_a_guest_whose_record_cannot_be_read_is_left_alone(config: AgentConfig, left_behind: Leave) -> None:
    record = left_behind()
    (config.work / "shards/s1/shard.json").write_text("{")
    host = ShardHost(config)
    with pytest.raises(NotFound):
        host.guest(S1)
    assert alive(record)


def test_what_was_given_away_takes_no_room(config: AgentConfig, left_behind: Leave) -> None:
    left_behind(ceded_epoch=2)
    assert ShardHost(config).reserved() == Resources(vcpus=0, memory_gib=0)


def test_releasing_kills_that_process_and_removes_its_folder(config: AgentConfig, left_behind: Leave) -> None:
    record = left_behind()
    other = left_behind("s2")
    host = ShardHost(config)
    asyncio.run(host.release(S1, 1))
    assert not alive(record)
    assert alive(other)
    assert not (config.work / "shards/s1").exists()
    assert host.epochs.get(S1) == 1


def test_a_stale_release_kills_nothing(config: AgentConfig, left_behind: Leave) -> None:
    record = left_behind()
    host = ShardHost(config)
    host.epochs.accept(S1, 3)
    with pytest.raises(StaleEpoch):
        asyncio.run(host.release(S1, 2))
    assert alive(record)


def test_told_to_stop_the_guests_it_ends_them_all(config: AgentConfig, left_behind: Leave) -> None:
    records = [left_behind(name) for name in ("s1", "s2")]
    asyncio.run(ShardHost(config).stop_all())
    assert not any(alive(record) for record in records)


def test_letting_go_leaves_them_running(config: AgentConfig, left_behind: Leave) -> None:
    record = left_behind()
    asyncio.run(ShardHost(config).close())
    assert alive(record)


def test_guests_found_again_count_against_the_node(config: AgentConfig, left_behind: Leave) -> None:
    left_behind()
    host = ShardHost(config)
    host.require_room(Resources(vcpus=1, memory_gib=0.125))
    with pytest.raises(InsufficientCapacity, match=r"vcpus: 2\.5 wanted of 2"):
        host.require_room(Resources(vcpus=1.5, memory_gib=0.125))


def test_nothing_is_made_outside_the_work_folder(host: ShardHost, config: AgentConfig, tmp_path: Path) -> None:
    assert {path.name for path in tmp_path.iterdir()} == {"epochs", "shards"}
    assert config.work == tmp_path
