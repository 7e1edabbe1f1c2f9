"""What a driver makes of a lock whose holder is out of sight, and of an engine that cannot read or write a stack."""

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import SecretStr

from engine.clock import ManualClock
from engine.errors import ConcurrentUpdate, ProviderError, ShardwrightError
from engine.model.placement import Cell
from providers.base import InstanceRecord, ProviderSettings, SupportsInventory
from stacks import driver as drivers
from stacks.driver import PulumiCellDriver
from stacks.state_files import PROJECT

CELL = Cell(provider="harbor", kind="network", account="main", region="eu")
_ENGINE = """#!/bin/sh
echo "$*" >> "{calls}"
case "$*" in
  version*) echo v3.245.0 ;;
  *"{failing}"*) echo "error: unexpected end of JSON input" >&2; exit 255 ;;
  *"stack export"*) cat "{state}" ;;
  *) echo "{{}}" ;;
esac
"""


class NothingRuns:
    def instances(self) -> tuple[InstanceRecord, ...]:
        return ()


NOTHING: SupportsInventory = NothingRuns()


class World:
    """One cell whose last update was cut off; the engine is a script that fails at the command it is told to."""

    def __init__(self, folder: Path, clock: ManualClock) -> None:
        self.folder, self.clock = folder, clock
        self.calls = folder / "calls"
        self.state = folder / "state/.pulumi/stacks" / PROJECT / f"{CELL.stack_name}.json"
        self._lock = folder / "state/.pulumi/locks/organization" / PROJECT / CELL.stack_name / "1.json"

    def driver(self, failing: str = "no such command") -> PulumiCellDriver:
        engine = self.folder / "engine" / "bin" / "pulumi"
        engine.parent.mkdir(parents=True)
        engine.write_text(_ENGINE.format(calls=self.calls, failing=failing, state=self.state))
        engine.chmod(0o755)
        settings = ProviderSettings(
            name="harbor",
            kind="network",
            account="main",
            regions=("eu",),
            endpoint="http://127.0.0.1:1",
            credentials={},
        )
        return PulumiCellDriver(
            work_dir=self.folder / "work",
            state_url=f"file://{self.folder / 'state'}",
            passphrase=SecretStr("passphrase"),
            engine_root=self.folder / "engine",
            settings={"harbor": settings},
            clock=self.clock,
        )

    def locked(self, host: str, pid: int = 1) -> None:
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        self._lock.write_text(json.dumps({"pid": pid, "hostname": host, "timestamp": self.clock.now().isoformat()}))
        self.written(self._lock)

    def cut_off(self) -> None:
        pending = {"type": "updating", "resource": {"urn": "u"}}
        latest = {"resources": [], "pending_operations": [pending]}
        self.state.parent.mkdir(parents=True)
        self.state.write_text(json.dumps({"version": 3, "deployment": latest, "checkpoint": {"latest": latest}}))
        self.written(self.state)

    def written(self, path: Path) -> None:
        at = self.clock.now().timestamp()
        os.utime(path, (at, at))

    @property
    def asked(self) -> list[str]:
        """What the engine was asked for."""
        return [line for line in self.calls.read_text().splitlines() if not line.startswith("version")]


@pytest.fixture
def world(tmp_path: Path, clock: ManualClock) -> World:
    return World(tmp_path, clock)


def test_an_engine_on_another_machine_counts_as_ended_once_it_is_silent(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    driver = world.driver()
    world.locked("gone")
    with pytest.raises(ConcurrentUpdate) as caught:
        driver.recover(CELL, NOTHING)
    assert caught.value.why == "process 1 on gone holds the lock"
    assert f"pulumi cancel --yes --stack organization/shardwright/{CELL.stack_name} " in caught.value.next_step
    assert driver.needs_recovery(CELL)
    world.clock.sleep(15 * 60)
    assert driver.recover(CELL, NOTHING).nothing_to_do
    assert not driver.needs_recovery(CELL)
    assert "host=gone" in capsys.readouterr().out


def test_as_long_as_it_writes_the_state_it_works(world: World) -> None:
    driver = world.driver()
    world.cut_off()
    world.locked("elsewhere")
    world.clock.sleep(14 * 60 + 30)
    world.written(world.state)
    with pytest.raises(ConcurrentUpdate):
        driver.recover(CELL, NOTHING)


def test_a_lock_of_this_machine_whose_pid_is_someone_elses_is_no_reason_to_wait(world: World) -> None:
    driver, began = world.driver(), world.clock.now()
    world.locked(socket.gethostname(), os.getpid())
    assert driver.recover(CELL, NOTHING).nothing_to_do
    assert world.clock.now() == began


@pytest.mark.parametrize("failing", ["stack export", "stack import"])
def test_what_the_engine_cannot_do_is_the_error_of_the_cell(world: World, failing: str) -> None:
    driver = world.driver(failing)
    world.cut_off()
    with pytest.raises(ProviderError, match="unexpected end of JSON input") as caught:
        driver.recover(CELL, NOTHING)
    assert CELL.id in caught.value.what
    assert failing in world.asked[-1]
    assert list(world.folder.rglob("import*.json")) == [], "it would hold secrets"


def test_so_is_a_folder_that_cannot_be_written_to(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = world.driver()
    world.cut_off()
    monkeypatch.setattr(Path, "touch", _refused)
    with pytest.raises(ShardwrightError, match=f"{CELL.id}: .*No space left on device") as caught:
        driver.recover(CELL, NOTHING)
    assert "once that is mended" in caught.value.next_step


def test_on_a_full_disk_nothing_is_begun(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = world.driver()
    world.cut_off()
    world.locked(socket.gethostname())
    enough: Callable[[Path], None] = drivers.require_space
    monkeypatch.setattr(drivers, "require_space", _full)
    with pytest.raises(ShardwrightError, match="full"):
        driver.recover(CELL, NOTHING)
    assert world.asked == []
    assert list((world.folder / "state").rglob("1.json")), "the lock stays"
    monkeypatch.setattr(drivers, "require_space", enough)
    assert driver.recover(CELL, NOTHING).cleared == ("u",)


def _full(folder: Path) -> None:
    raise ShardwrightError(f"the disk of {folder} is full")


def _refused(_path: Path, *_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")
