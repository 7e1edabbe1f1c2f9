"""Which way a guest comes up, with a launcher and templates that note what they are told."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent import guest
from agent.boots import Boots, shape
from agent.config import AgentConfig
from agent.guest import GuestRecord
from agent.guest_scripts import READY_MARK, WAITS_MARK
from agent.node_guest import Guest
from agent.shards import ShardHost
from agent.wire import NetworkMode
from engine.clock import ManualClock
from engine.errors import MissingPart, NotFound
from engine.model.ids import ShardId
from engine.model.workload_image import ImageFile, ReadyCheck, WorkloadImage
from tests.unit.agent.conftest import PROFILE

Leave = Callable[..., GuestRecord]


class Stage:
    """Launcher and templates in one: a guest that is launched waits at once."""

    def __init__(self, folder: Path, *, keeps: bool = True, restores: bool = True, meanwhile: bool = False) -> None:
        """``meanwhile``: another agent has made the template when it is this one's turn to boot."""
        self.meanwhile = meanwhile
        self.template, self.keeps, self.restores = folder / "template", keeps, restores
        self.told: list[str] = []

    async def launch(self, here: Guest, *, restoring: bool = False) -> None:
        self.told.append("wait for template" if restoring else "boot")
        (here.run / guest.CONSOLE_LOG).write_text("" if restoring else f"{WAITS_MARK}\n")

    async def end_guest(self, here: Guest) -> None:
        self.told.append("end")

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        self.told.append("turn")
        if self.meanwhile:
            self.template.write_bytes(b"")
        yield

    def forget(self, _name: str) -> None:
        self.told.append("forget")
        self.template.unlink(missing_ok=True)

    def find(self, _name: str) -> Path | None:
        return self.template if self.template.exists() else None

    async def keep(self, _name: str, _here: Guest) -> Path | None:
        self.told.append("keep")
        if self.keeps:
            self.template.write_bytes(b"")
        return self.find("")

    async def restore(self, path: Path, _here: Guest) -> bool:
        self.told.append("restore")
        if not self.restores:
            path.unlink()
        return self.restores


@pytest.fixture
def here(config: AgentConfig, left_behind: Leave, monkeypatch: pytest.MonkeyPatch) -> Guest:
    """A shard on a bridge; its guest says that it is up once it has been told who it is."""
    left_behind(tap="sw0", network=NetworkMode.BRIDGE, forwarded_port=None)
    found = ShardHost(config).guest(ShardId("s1"))
    guest.create_disk(found.folder / "disk.raw", 1)

    async def ask(run: Path, question: str, answer: str, _seconds: float) -> int:
        assert (question.split()[0], answer) == ("become", "identity")
        with (run / guest.CONSOLE_LOG).open("a") as log:
            log.write(f"shardwright-measured read_iops 7\n{READY_MARK}\n")
        return 1

    monkeypatch.setattr("agent.console.ask", ask)
    return found


def boot(here: Guest, stage: Stage) -> None:
    clock = ManualClock(datetime(2026, 1, 2, tzinfo=UTC))
    asyncio.run(Boots(stage, stage, clock, stage.turn).boot(here))  # type: ignore[arg-type]


def test_the_first_makes_the_template_and_the_next_ones_are_restored(here: Guest, tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    boot(here, stage)
    assert stage.told == ["end", "turn", "boot", "keep", "end", "wait for template", "restore"]
    assert (here.record.measured.from_template, here.record.measured.read_iops) == (True, 7)
    stage.told.clear()
    boot(here, stage)
    assert stage.told == ["end", "wait for template", "restore"]
    assert here.record.measured.from_template


def test_whoever_waits_for_a_turn_to_boot_finds_the_template_of_another(here: Guest, tmp_path: Path) -> None:
    stage = Stage(tmp_path, meanwhile=True)
    boot(here, stage)
    assert stage.told == ["end", "turn", "wait for template", "restore"]


def test_without_a_template_it_boots(here: Guest, tmp_path: Path) -> None:
    stage = Stage(tmp_path, keeps=False)
    boot(here, stage)
    assert stage.told == ["end", "turn", "boot", "keep", "end", "turn", "boot"]
    assert not here.record.measured.from_template


def test_a_template_that_is_of_no_use_costs_a_boot(here: Guest, tmp_path: Path) -> None:
    stage = Stage(tmp_path, restores=False)
    stage.template.write_bytes(b"")
    boot(here, stage)
    assert stage.told == ["end", "wait for template", "restore", "end", "turn", "boot"]
    assert not here.record.measured.from_template


def test_an_image_that_does_not_speak_is_never_copied(here: Guest, tmp_path: Path) -> None:
    file = ImageFile(source="k", sha256="a" * 64)
    own = WorkloadImage(name="mine", kernel=file, ready=ReadyCheck(console=WAITS_MARK))
    here.save(profile=PROFILE.model_copy(update={"image": own}))
    stage = Stage(tmp_path)
    boot(here, stage)
    assert stage.told == ["end", "turn", "boot"]


def test_an_image_whose_disk_holds_code_is_never_copied(here: Guest, tmp_path: Path) -> None:
    """A template would be of a disk that has been used, perhaps by another shard's owner."""
    file = ImageFile(source="k", sha256="a" * 64)
    own = WorkloadImage(name="mine", kernel=file, disk=file, speaks=True, ready=ReadyCheck(console=READY_MARK))
    here.save(profile=PROFILE.model_copy(update={"image": own}))
    stage = Stage(tmp_path)
    boot(here, stage)
    assert stage.told == ["end", "turn", "boot"]
    here.save(profile=PROFILE.model_copy(update={"image": own.model_copy(update={"disk": None})}))
    stage.told.clear()
    boot(here, stage)
    assert "keep" in stage.told


def test_a_template_whose_guest_never_comes_up_is_thrown_away(
    here: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def deaf(*_: object) -> int:
        raise NotFound("no answer")

    stage = Stage(tmp_path)
    stage.template.write_bytes(b"")
    monkeypatch.setattr("agent.console.ask", deaf)
    with pytest.raises(NotFound):
        boot(here, stage)
    assert stage.told == ["end", "wait for template", "restore", "forget", "end"]
    assert not stage.template.exists()


def test_a_guest_that_dies_on_the_way_says_what_it_said_last(
    here: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.guest.waits", lambda _run: False)
    here.save(start_ticks=here.record.start_ticks + 1)
    with pytest.raises(MissingPart, match=WAITS_MARK):
        boot(here, Stage(tmp_path))


def test_a_boot_that_fails_leaves_nothing_running_and_may_be_begun_again(
    here: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def deaf(*_: object) -> int:
        raise NotFound("no answer")

    stage = Stage(tmp_path)
    with monkeypatch.context() as deafened:
        deafened.setattr("agent.console.ask", deaf)
        with pytest.raises(NotFound):
            boot(here, stage)
    assert stage.told[-1] == "end"
    assert here.record.booting
    boot(here, stage)
    assert here.record.booting, "the caller has still to limit it"
    assert here.record.measured.from_template


def test_two_shards_of_one_shape_share_a_template_and_another_disk_does_not(here: Guest) -> None:
    first = shape(here)
    same = {"shard": ShardId("s2"), "address": "10.9.0.3/16", "mac": "52:54:00:09:00:03", "tap": "sw1"}
    here.save(**same)
    assert shape(here) == first
    here.save(disk_mib=65)
    assert shape(here) != first


def test_two_shards_of_an_own_image_share_a_template_whatever_their_addresses(here: Guest) -> None:
    file = ImageFile(source="k", sha256="a" * 64)
    own = WorkloadImage(name="mine", kernel=file, speaks=True, ready=ReadyCheck(console=READY_MARK))
    here.save(profile=PROFILE.model_copy(update={"image": own}))
    first = shape(here)
    here.save(address="10.9.0.3/16")
    assert shape(here) == first
