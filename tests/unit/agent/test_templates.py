"""Checkpoints with a QEMU that is a script: it connects to the socket it is told of, and takes what comes there."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agent.config import AgentConfig
from agent.guest import GuestRecord
from agent.monitor import GuestRefused
from agent.node_guest import Guest
from agent.shards import ShardHost
from agent.templates import Templates, identity, key
from engine.clock import ManualClock
from engine.model.ids import ShardId
from tests.unit.agent.conftest import PROFILE

S1 = ShardId("s1")
Leave = Callable[..., GuestRecord]
MEMORY = b"memory" * 1000


class Qemu:
    """``fails``: the command that it refuses; ``ends``: how its migrations end."""

    def __init__(self, run: Path, fails: str = "", ends: str = "completed") -> None:
        self.run, self.fails, self.ends = run, fails, ends
        self.done: list[str] = []
        self.restored = b""
        self.listener: socket.socket | None = None

    async def execute(self, command: str, arguments: dict[str, Any] | None = None) -> Any:
        if command == self.fails:
            raise GuestRefused(command)
        self.done.append(command)
        if command == "migrate":
            assert arguments is not None
            await asyncio.to_thread(self._connect, arguments["uri"].removeprefix("unix:"))
        if command == "migrate-incoming":
            assert arguments is not None
            self.listener = socket.socket(socket.AF_UNIX)
            self.listener.bind(str(self.run / arguments["uri"].removeprefix("unix:")))
            self.listener.listen()
        if command == "query-migrate":
            if self.listener is not None:
                await asyncio.to_thread(self._accept, self.listener)
                self.listener = None
            return {"status": self.ends}
        return {}

    def _connect(self, name: str) -> None:
        with socket.socket(socket.AF_UNIX) as out:
            out.connect(str(self.run / name))
            out.sendall(MEMORY)

    def _accept(self, listener: socket.socket) -> None:
        with listener, listener.accept()[0] as connection:
            while chunk := connection.recv(1 << 20):
                self.restored += chunk

    async def close(self) -> None:
        return


@pytest.fixture
def templates(tmp_path: Path) -> Templates:
    return Templates(tmp_path / "templates")


@pytest.fixture
def here(config: AgentConfig, left_behind: Leave) -> Guest:
    left_behind()
    return ShardHost(config).guest(S1)


def with_qemu(here: Guest, **how: str) -> Qemu:
    qemu = Qemu(here.run, **how)
    here.monitor = qemu  # type: ignore[assignment]
    return qemu


def test_what_is_kept_comes_back_and_nobody_else_can_read_it(templates: Templates, here: Guest) -> None:
    qemu = with_qemu(here)
    assert templates.find("a1") is None
    path = asyncio.run(templates.keep("a1", here))
    assert path is not None
    assert path == templates.find("a1")
    assert path.read_bytes() == MEMORY
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert qemu.done.index("stop") < qemu.done.index("migrate")
    assert asyncio.run(templates.restore(path, here))
    assert (qemu.restored, qemu.done[-1]) == (MEMORY, "cont")
    for _ in range(2):
        templates.forget("a1")
        assert templates.find("a1") is None


def test_the_socket_is_given_away_and_never_what_a_link_in_its_place_leads_to(
    templates: Templates, here: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is the guest's user's: what it puts there must not become its own elsewhere."""
    given: list[tuple[Path, int, int, bool]] = []

    def chown(path: Path, user: int, group: int, *, follow_symlinks: bool = True) -> None:
        given.append((path, user, group, follow_symlinks))

    monkeypatch.setattr("agent.templates.os.chown", chown)
    monkeypatch.setattr("agent.guest.user_for", lambda *_: 4242)
    with_qemu(here)
    assert asyncio.run(templates.keep("a1", here)) is not None
    assert given == [(here.run / "template.sock", 4242, 4242, False)]


@pytest.mark.parametrize("how", [{"fails": "stop"}, {"ends": "failed"}])
def test_a_checkpoint_that_fails_leaves_nothing(
    templates: Templates, here: Guest, how: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.templates._SECONDS", 0.2)
    with_qemu(here, **how)
    assert asyncio.run(templates.keep("a1", here)) is None
    assert list((tmp_path / "templates").iterdir()) == []
    assert not (here.run / "template.sock").exists()


@pytest.mark.parametrize("how", [{"fails": "migrate-incoming"}, {"ends": "failed"}])
def test_a_template_that_cannot_be_restored_is_thrown_away(
    templates: Templates, here: Guest, how: dict[str, str]
) -> None:
    with_qemu(here)
    path = asyncio.run(templates.keep("a1", here))
    assert path is not None
    qemu = with_qemu(here, **how)
    assert not asyncio.run(templates.restore(path, here))
    assert templates.find("a1") is None
    assert "cont" not in qemu.done


def test_the_oldest_go(templates: Templates, here: Guest) -> None:
    names = [f"{number:02x}" for number in range(8)]
    for age, name in enumerate(names):
        with_qemu(here)
        path = asyncio.run(templates.keep(name, here))
        assert path is not None
        os.utime(path, (age, age))
    left = [name for name in names if templates.find(name)]
    assert left == names[-6:]


def test_another_qemu_image_or_device_is_another_template() -> None:
    line = ["qemu", "-m", "128"]
    others = [PROFILE.model_copy(update=change) for change in ({"qemu_version": "8"}, {"image_digest": "e"})]
    names = {key(line, PROFILE), key([*line, "-device"], PROFILE), *(key(line, other) for other in others)}
    assert len(names) == 4
    assert key(list(line), PROFILE) in names


def test_an_identity_is_one_line_and_its_seed_is_never_the_same(here: Guest) -> None:
    clock = ManualClock(datetime(2026, 1, 2, tzinfo=UTC))
    first, second = identity(here, 1450, clock).split(), identity(here, 1450, clock).split()
    assert first[:6] == ["become", "10.9.0.2/16", "52:54:00:09:00:02", "1450", "1767312000", "s1"]
    assert len(bytes.fromhex(first[6])) == 64
    assert first[6] != second[6]


def test_what_an_agent_that_died_has_left_half_goes_when_one_begins(tmp_path: Path) -> None:
    """Those of others that live are theirs; this one has begun nothing yet, so that its number was another's."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for name in (f".a1.{gone.pid}", f".a1.{os.getpid()}", f".a1.{os.getppid()}", "a1"):
        (tmp_path / name).write_bytes(MEMORY)
    templates = Templates(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f".a1.{os.getppid()}", "a1"]
    assert templates.find("a1") == tmp_path / "a1"
