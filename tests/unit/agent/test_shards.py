import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent import guest
from agent.config import AgentConfig
from agent.guest import GuestRecord, alive
from agent.image import GuestImage
from agent.node_guest import Guest
from agent.shards import ShardHost
from agent.wire import CarveRequest, GuestState, ShardStatus
from engine.errors import ConcurrentUpdate, InsufficientCapacity, MoveFailed, NotFound, StaleEpoch, UsageError
from engine.model.capacity import Resources
from engine.model.ids import ShardId
from tests.unit.agent.conftest import PROFILE, guest_record

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


def test_one_that_lives_and_does_not_answer_is_not_dead(config: AgentConfig, left_behind: Leave) -> None:
    left_behind()
    assert asyncio.run(ShardHost(config).status(S1)).state is GuestState.HUNG


def test_a_guest_whose_record_cannot_be_read_is_left_alone(config: AgentConfig, left_behind: Leave) -> None:
    record = left_behind()
    (config.work / "shards/s1/shard.json").write_text("{")
    host = ShardHost(config)
    with pytest.raises(NotFound):
        host.guest(S1)
    assert alive(record)


def test_a_guest_that_moves_is_not_measured(config: AgentConfig, left_behind: Leave) -> None:
    """Paused for its switchover it would never answer, and its switchover wait for that."""
    left_behind(move="m1")
    with pytest.raises(ConcurrentUpdate, match="it moves"):
        asyncio.run(ShardHost(config).measure(ShardId("s1"), 1, 1))


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
    assert host.epochs.get(S1) == 2, "what was carved at its last epoch is not carved again"
    asyncio.run(host.release(S1, 1))
    assert host.epochs.get(S1) == 2


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


class Plugging:
    """A QEMU whose guest plugs in what it is asked for, and lets go of all but ``kept`` MiB of it."""

    def __init__(self, kept: int = 0, fails_above: int = 1 << 20) -> None:
        self.kept, self.fails_above, self.size, self.asked = kept, fails_above, 0, list[int]()

    async def execute(self, command: str, arguments: dict[str, Any] | None = None) -> Any:
        if command == "qom-set":
            assert arguments is not None
            self.asked.append(arguments["value"] >> 20)
            self.size = min(max(self.asked[-1], min(self.kept, self.size)), self.fails_above)
        return {"running": True} if command == "query-status" else self.size << 20


class Stalling(Plugging):
    """Its QEMU does what it was asked for, but answers nothing from the ``silent_from``-th change on."""

    def __init__(self, silent_from: int, *, recovers: bool = False) -> None:
        super().__init__()
        self.silent_from, self.recovers, self.silent = silent_from, recovers, False

    async def execute(self, command: str, arguments: dict[str, Any] | None = None) -> Any:
        if self.silent:
            self.silent = not self.recovers
            raise NotFound(f"QEMU does not answer {command}")
        said = await super().execute(command, arguments)
        self.silent = command == "qom-set" and len(self.asked) == self.silent_from
        return said

    def answers_again(self) -> None:
        self.silent, self.silent_from = False, 0


MIB = 1 / 1024
GROWING = {"memory_mib": 128, "memory_growth_mib": 384}


@pytest.fixture
def growing(
    config: AgentConfig, left_behind: Leave, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Plugging], ShardHost]:
    """A host with one shard of 128 MiB, whose guest says at once what it was given; one that stalls is given up."""

    def grown(monitor: Plugging) -> ShardHost:
        left_behind(profile=PROFILE.model_copy(update=GROWING))
        host = ShardHost(config)
        host.guests[S1].monitor = monitor  # type: ignore[assignment]

        async def ask(_run: Path, _question: str, _answer: str, _seconds: float) -> int:
            return (128 + monitor.size) * 1024

        monkeypatch.setattr("agent.console.ask", ask)
        monkeypatch.setattr("agent.memory_size.STALLED_SECONDS", 0.0)
        return host

    return grown


def memory_of(host: ShardHost, mib: int) -> ShardStatus:
    wanted = host.guest(S1).record.resources.model_copy(update={"memory_gib": mib * MIB})
    return asyncio.run(host.resize(S1, 1, wanted))


def test_memory_grows_and_shrinks_and_is_kept_in_the_record(growing: Callable[[Plugging], ShardHost]) -> None:
    host = growing(monitor := Plugging())
    assert (memory_of(host, 512).measured.memory_mib, host.guest(S1).record.resources.memory_gib) == (512, 0.5)
    assert host.reserved().memory_gib == 0.5
    assert memory_of(host, 128).measured.memory_mib == 128
    assert monitor.asked == [384, 0]
    assert ShardHost(host.config).guest(S1).record.resources.memory_gib == 0.125


def test_memory_that_is_not_given_back_leaves_all_as_it_was(growing: Callable[[Plugging], ShardHost]) -> None:
    host = growing(monitor := Plugging(kept=100))
    memory_of(host, 256)
    with pytest.raises(InsufficientCapacity, match=r"given back 28 MiB of 128.*it has 256 MiB again"):
        memory_of(host, 128)
    assert (monitor.size, host.guest(S1).record.resources.memory_gib) == (128, 0.25)


def test_memory_that_the_guest_does_not_take_is_taken_back(growing: Callable[[Plugging], ShardHost]) -> None:
    host = growing(monitor := Plugging(fails_above=64))
    with pytest.raises(InsufficientCapacity, match=r"taken 64 MiB of 128.*it has 128 MiB again"):
        memory_of(host, 256)
    assert monitor.asked == [128, 0]
    assert host.reserved().memory_gib == 0.125


@pytest.mark.parametrize(("again", "counted"), [(512, None), (128, 128), (256, 256)])
def test_growth_that_may_come_yet_counts_until_the_shard_is_resized_again(
    growing: Callable[[Plugging], ShardHost], again: int, counted: int | None
) -> None:
    host = growing(monitor := Stalling(silent_from=1))
    with pytest.raises(NotFound, match="does not answer qom-get"):
        memory_of(host, 512)
    assert (monitor.size, host.reserved().memory_gib) == (384, 0.5)
    assert ShardHost(host.config).guest(S1).record.resources.memory_gib == 0.5
    monitor.answers_again()
    now = memory_of(host, again)
    assert (now.measured.memory_mib, now.resources.memory_gib) == (counted, again * MIB)
    assert (monitor.size, host.reserved().memory_gib) == (again - 128, again * MIB)


def test_growth_that_never_came_is_asked_for_again(growing: Callable[[Plugging], ShardHost]) -> None:
    """The record says that it has it: it counts."""
    host = growing(monitor := Stalling(silent_from=1))
    with pytest.raises(NotFound):
        memory_of(host, 512)
    monitor.answers_again()
    monitor.size = 0
    assert memory_of(host, 512).measured.memory_mib == 512
    assert (monitor.size, monitor.asked) == (384, [384, 384])


def test_a_resize_that_broke_off_is_undone_where_the_guest_answers_again(
    growing: Callable[[Plugging], ShardHost],
) -> None:
    host = growing(monitor := Stalling(silent_from=1, recovers=True))
    with pytest.raises(NotFound):
        memory_of(host, 512)
    assert (monitor.size, monitor.asked, host.reserved().memory_gib) == (0, [384, 0], 0.125)


def test_memory_that_may_be_given_back_yet_counts_still(growing: Callable[[Plugging], ShardHost]) -> None:
    host = growing(monitor := Stalling(silent_from=2))
    memory_of(host, 256)
    with pytest.raises(NotFound):
        memory_of(host, 128)
    assert (monitor.size, host.reserved().memory_gib) == (0, 0.25)
    monitor.answers_again()
    assert memory_of(host, 256).measured.memory_mib == 256
    assert monitor.size == 128


def test_what_a_guest_took_and_does_not_give_back_counts(growing: Callable[[Plugging], ShardHost]) -> None:
    host = growing(monitor := Plugging(kept=32, fails_above=64))
    with pytest.raises(InsufficientCapacity, match=r"it has 160 MiB again, and counts with 512 until"):
        memory_of(host, 512)
    assert (monitor.size, host.reserved().memory_gib) == (32, 0.5)


def test_a_node_without_room_gives_no_more(
    growing: Callable[[Plugging], ShardHost], left_behind: Leave, config: AgentConfig
) -> None:
    left_behind("s2", resources=Resources(vcpus=1, memory_gib=0.75))
    host = growing(monitor := Plugging())
    with pytest.raises(InsufficientCapacity, match=r"memory_gib: 1\.25 wanted of 1"):
        memory_of(host, 512)
    assert monitor.asked == []


def test_a_shard_in_a_move_keeps_its_memory(growing: Callable[[Plugging], ShardHost]) -> None:
    host = growing(monitor := Plugging())
    host.guest(S1).save(move="m1")
    with pytest.raises(ConcurrentUpdate, match="cannot change now"):
        memory_of(host, 256)
    assert monitor.asked == []


@pytest.mark.parametrize("wanted", [{"vcpus": 1.5}, {"storage_iops": 501.0}, {"memory_gib": 0.75}])
def test_no_share_grows_beyond_what_the_node_has_left(
    config: AgentConfig, growing: Callable[[Plugging], ShardHost], wanted: dict[str, float], left_behind: Leave
) -> None:
    left_behind("s2", resources=Resources(vcpus=1, memory_gib=0.5))
    host = growing(monitor := Plugging())
    profile = PROFILE.model_copy(update=GROWING | {"cpus": 2, "memory_growth_mib": 1024})
    host.guest(S1).save(profile=profile)
    before = host.guest(S1).record.resources
    with pytest.raises(InsufficientCapacity, match=f"{next(iter(wanted))}: "):
        asyncio.run(host.resize(S1, 1, before.model_copy(update=wanted)))
    assert (host.guest(S1).record.resources, monitor.asked) == (before, [])


def test_a_share_changes_within_the_virtual_cpus_that_the_guest_has(growing: Callable[[Plugging], ShardHost]) -> None:
    host = growing(Plugging())
    host.guest(S1).save(profile=PROFILE.model_copy(update=GROWING | {"cpus": 1}))
    small = Resources(vcpus=0.25, memory_gib=0.125, storage_iops=40)
    assert asyncio.run(host.resize(S1, 1, small)).resources == small
    assert asyncio.run(host.resize(S1, 1, small.model_copy(update={"vcpus": 1.0}))).resources.vcpus == 1
    with pytest.raises(UsageError, match="up to 1 vCPUs"):
        asyncio.run(host.resize(S1, 1, small.model_copy(update={"vcpus": 1.5})))


def test_nothing_of_a_shard_that_moves_is_resized(growing: Callable[[Plugging], ShardHost]) -> None:
    """Its destination has been told already what it has here."""
    host = growing(Plugging())
    before = host.guest(S1).record.resources
    for state in ({"move": "m1"}, {"move": None, "incoming": True}, {"incoming": False, "ceded_epoch": 2}):
        host.guest(S1).save(**state)
        with pytest.raises(ConcurrentUpdate, match="cannot change now"):
            asyncio.run(host.resize(S1, 1, before.model_copy(update={"storage_iops": 10.0})))
    assert host.guest(S1).record.resources == before


@pytest.mark.parametrize("booting", [True, False])
def test_a_boot_that_an_agent_died_over_is_begun_again(
    config: AgentConfig, left_behind: Leave, monkeypatch: pytest.MonkeyPatch, booting: bool
) -> None:
    record = left_behind(booting=booting)
    host, booted = ShardHost(config), list[ShardId]()

    async def boot(here: Guest) -> None:
        booted.append(here.record.shard)

    monkeypatch.setattr(host, "boot", boot)
    host.guests[S1].monitor = Plugging()  # type: ignore[assignment]
    request = CarveRequest(
        shard=S1, epoch=1, resources=record.resources, address=record.address, mac=record.mac, disk_mib=1
    )
    asyncio.run(host.carve(request))
    assert booted == [S1] * booting


def carving(record: GuestRecord) -> CarveRequest:
    return CarveRequest(
        shard=S1, epoch=1, resources=record.resources, address=record.address, mac=record.mac, disk_mib=1
    )


def test_a_boot_keeps_nobody_from_carving_another_shard(
    config: AgentConfig, left_behind: Leave, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = left_behind(booting=True)
    host = ShardHost(config)
    host.guests[S1].monitor = Plugging()  # type: ignore[assignment]

    async def go() -> None:
        begun, booted = asyncio.Event(), asyncio.Event()

        async def boot(_here: Guest) -> None:
            begun.set()
            await booted.wait()

        monkeypatch.setattr(host, "boot", boot)
        task = asyncio.create_task(host.carve(carving(record)))
        await begun.wait()
        assert not host.carving.locked()
        booted.set()
        await task

    asyncio.run(asyncio.wait_for(go(), 10))


def test_a_copied_disk_keeps_nobody_from_carving_another_shard_and_is_made_once(
    host: ShardHost, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = tmp_path / "image"
    source.write_bytes(b"boot")
    have = GuestImage(name="mine", kernel="", initrd="", kernel_version="", digest="d", disk=str(source))
    create, locked, booted = guest.create_disk, list[bool](), list[bool]()

    async def image(_own: object, *, disk: bool, seconds: float = 0) -> GuestImage:
        return have

    def created(path: Path, mib: int, content: str = "") -> int:
        locked.append(host.carving.locked())
        return create(path, mib, content)

    async def boot(here: Guest) -> None:
        booted.append((here.folder / "disk.raw").exists())
        here.save(pid=1)

    host.accelerator = "tcg"
    monkeypatch.setattr(host, "image", image)
    monkeypatch.setattr(host, "boot", boot)
    monkeypatch.setattr(guest, "create_disk", created)
    request = CarveRequest(
        shard=S1, epoch=1, resources=Resources(vcpus=1, memory_gib=0.125), address="10.9.0.2/16",
        mac="52:54:00:09:00:02", disk_mib=2,
    )  # fmt: skip
    assert asyncio.run(host.carve(request)).disk_mib == 2
    assert (locked, booted) == ([False], [True])
    (host.guest(S1).folder / "disk.raw").unlink()
    asyncio.run(host.carve(request))  # a disk that was lost is not taken for an empty one
    assert (locked, booted) == ([False], [True, False])


def test_what_was_released_while_a_carving_waited_is_not_booted(config: AgentConfig, left_behind: Leave) -> None:
    record = left_behind(booting=True)
    host = ShardHost(config)

    async def go() -> None:
        here = host.guest(S1)
        async with here.busy:
            task = asyncio.create_task(host.carve(carving(record)))
            for _ in range(20):
                await asyncio.sleep(0)
            await host.discard(here)
        with pytest.raises(ConcurrentUpdate, match="released meanwhile"):
            await task

    asyncio.run(asyncio.wait_for(go(), 10))


def test_a_release_that_waited_removes_nothing_that_came_after_it(config: AgentConfig, left_behind: Leave) -> None:
    record = left_behind()
    host = ShardHost(config)

    async def go() -> None:
        first = host.guest(S1)
        async with first.busy:
            task = asyncio.create_task(host.release(S1, 1))
            await asyncio.sleep(0)
            host.guests[S1] = Guest(first.folder, record)
            host.epochs.accept(S1, 4)
        with pytest.raises(StaleEpoch):
            await task

    asyncio.run(asyncio.wait_for(go(), 10))
    assert alive(record)


def _waits_for_its_image(host: ShardHost, monkeypatch: pytest.MonkeyPatch, which: int) -> list[asyncio.Event]:
    """At the ``which``-th time that it is asked for: begun, come."""
    events, asked = [asyncio.Event(), asyncio.Event()], list[bool]()

    async def image(_own: object, *, disk: bool, seconds: float = 0) -> GuestImage:
        asked.append(disk)
        if len(asked) == which:
            events[0].set()
            await events[1].wait()
        return GuestImage(name="mine", kernel="", initrd="", kernel_version="", digest="d")

    host.accelerator = "tcg"
    monkeypatch.setattr(host, "image", image)
    return events


@pytest.mark.parametrize("which", [1, 2], ids=["before its turn", "in its turn"])
def test_what_was_released_while_its_image_came_is_not_carved(
    host: ShardHost, monkeypatch: pytest.MonkeyPatch, which: int
) -> None:
    async def go() -> None:
        begun, come = _waits_for_its_image(host, monkeypatch, which)
        task = asyncio.create_task(host.carve(carving(guest_record())))
        await begun.wait()
        await host.release(S1, 1)
        come.set()
        with pytest.raises(StaleEpoch):
            await task

    asyncio.run(asyncio.wait_for(go(), 10))
    assert host.guests == {}
    assert list((host.config.work / "shards").iterdir()) == []


def test_a_carving_that_comes_after_the_release_makes_nothing(config: AgentConfig, left_behind: Leave) -> None:
    record = left_behind(alive=False)
    host = ShardHost(config)
    asyncio.run(host.release(S1, 1))
    with pytest.raises(StaleEpoch):
        asyncio.run(host.carve(carving(record)))
    assert host.guests == {}


class Booted:
    """In place of a real boot, and of the node's control groups: notes what is done in which order."""

    def __init__(self, host: ShardHost, monkeypatch: pytest.MonkeyPatch, fails: str = "") -> None:
        self.host, self.fails, self.done = host, fails, list[str]()
        monkeypatch.setattr(host._boots, "boot", self._boot)
        monkeypatch.setattr(host, "apply_limits", self._apply_limits)

    async def _boot(self, here: Guest) -> None:
        here.save(booting=True, measured=here.record.measured.model_copy(update={"memory_mib": 128}))
        self.done.append("boot")

    async def _apply_limits(self, here: Guest, _resources: Resources) -> None:
        if self.fails == "limits":
            raise MoveFailed("no control group")
        self.done.append(f"limits while {'booting' if here.record.booting else 'up'}")

    def run(self) -> None:
        here = self.host.guest(S1)
        here.save(resources=here.record.resources.model_copy(update={"memory_gib": 0.25}))
        asyncio.run(self.host.boot(here))


def test_a_guest_whose_memory_cannot_be_measured_has_its_limits(
    growing: Callable[[Plugging], ShardHost], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unmeasured(_here: Guest, _grown: int) -> None:
        raise MoveFailed("the guest's own count of its memory takes too long")

    monkeypatch.setattr("agent.measuring.measure_memory", unmeasured)
    booted = Booted(host := growing(Plugging()), monkeypatch)
    with pytest.raises(MoveFailed, match="own count"):
        booted.run()
    assert booted.done == ["boot", "limits while booting"]
    assert not host.guest(S1).record.booting


def test_a_boot_without_limits_is_begun_again(
    growing: Callable[[Plugging], ShardHost], monkeypatch: pytest.MonkeyPatch
) -> None:
    booted = Booted(host := growing(Plugging()), monkeypatch, fails="limits")
    with pytest.raises(MoveFailed, match="control group"):
        booted.run()
    assert host.guest(S1).record.booting


@pytest.mark.parametrize(("most", "has"), [(1 << 20, 256), (64, 192), (0, 128)])
def test_a_boot_measures_the_memory_that_the_guest_has_again(
    growing: Callable[[Plugging], ShardHost], monkeypatch: pytest.MonkeyPatch, most: int, has: int
) -> None:
    monkeypatch.setattr("agent.memory_size.LONGEST_SECONDS", 0.2)
    host = growing(Plugging(fails_above=most))
    Booted(host, monkeypatch).run()
    assert host.guest(S1).record.measured.memory_mib == has
    assert not host.guest(S1).record.booting
