"""One pass for a guest that is calm, the usual rounds for one that is not; and when memory cannot have been lost."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from agent import sending
from agent.config import AgentConfig
from agent.guest import GuestRecord
from agent.node_guest import Guest
from agent.sending import DOWNTIME_LIMIT_MS, FirstPass
from agent.shards import ShardHost
from engine.model.ids import ShardId
from tests.unit.agent.conftest import PROFILE

Leave = Callable[..., GuestRecord]
MBPS = 80.0
"""10 MB/s: what may wait for the switchover is 2.5 MB."""


class Monitor:
    def __init__(self, *answers: dict[str, Any]) -> None:
        self._answers, self.done = list(answers), list[tuple[str, dict[str, Any] | None]]()

    async def execute(self, command: str, arguments: dict[str, Any] | None = None) -> Any:
        if command == "query-migrate":
            return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        self.done.append((command, arguments))
        return {}


class Changes:
    """Stands for the samples of a guest's memory."""

    changed = 0

    def __init__(self, _pid: int) -> None:
        return

    def changed_bytes(self) -> int:
        return Changes.changed


@pytest.fixture
def here(config: AgentConfig, left_behind: Leave, monkeypatch: pytest.MonkeyPatch) -> Guest:
    left_behind()
    monkeypatch.setattr("agent.memory.PageSample", Changes)
    monkeypatch.setattr("agent.sending._LOOK_EVERY_SECONDS", 0.0)
    return ShardHost(config).guests[ShardId("s1")]


def said(status: str = "active", collected: int = 1) -> dict[str, Any]:
    return {"status": status, "ram": {"dirty-sync-count": collected, "mbps": MBPS}}


def watched(here: Guest, changed: int) -> list[tuple[str, dict[str, Any] | None]]:
    Changes.changed = changed
    here.first_pass = FirstPass(here.record.pid)
    here.monitor = monitor = Monitor(said())  # type: ignore[assignment]
    asyncio.run(sending.watch(here, said()))
    return monitor.done


def test_the_guest_stands_still_until_its_writes_are_logged(here: Guest) -> None:
    here.monitor = monitor = Monitor(said("setup", 0), said("setup", 0), said())  # type: ignore[assignment]
    asyncio.run(sending.start(here, "tcp:there:1"))
    assert [command for command, _ in monitor.done] == ["stop", "migrate", "cont"]
    assert sending.first_limit_ms(here) == 0


def test_a_calm_guest_is_sent_in_one_pass(here: Guest) -> None:
    assert watched(here, changed=2_400_000) == []
    assert here.first_pass is not None


def test_a_guest_that_writes_too_much_is_sent_in_rounds(here: Guest) -> None:
    assert watched(here, changed=2_600_000) == [("migrate-set-parameters", {"downtime-limit": DOWNTIME_LIMIT_MS})]
    assert here.first_pass is None


def test_only_marks_that_were_collected_from_a_held_guest_prove_that_nothing_is_lost(here: Guest) -> None:
    assert sending.exact(here, said("pre-switchover", 1))
    assert not sending.exact(here, said("pre-switchover", 2))
    assert not sending.exact(here, {})


def test_with_kvm_nothing_is_held_and_nothing_compared(here: Guest) -> None:
    here.record = here.record.model_copy(update={"profile": PROFILE.model_copy(update={"accelerator": "kvm"})})
    here.monitor = monitor = Monitor(said())  # type: ignore[assignment]
    asyncio.run(sending.start(here, "tcp:there:1"))
    assert [command for command, _ in monitor.done] == ["migrate"]
    assert sending.first_limit_ms(here) == DOWNTIME_LIMIT_MS
    assert sending.exact(here, said("pre-switchover", 5))
