import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.config import AgentConfig
from agent.guest import GuestRecord
from agent.measuring import measure, measure_memory
from agent.node_guest import Guest
from agent.shards import ShardHost
from agent.wire import MeasuredPerformance, NetworkMode
from engine.errors import MoveFailed, NotFound
from engine.model.capacity import Resources
from engine.model.ids import ShardId
from engine.model.workload_image import ImageFile, ReadyCheck, WorkloadImage
from tests.unit.agent.conftest import PROFILE

Leave = Callable[..., GuestRecord]
Answers = dict[str, list[int]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> tuple[Answers, list[str]]:
    """What the guest answers to each name, in turn and then the last for ever; and what it was asked."""
    answers: Answers = {}
    questions: list[str] = []

    async def ask(_run: Path, question: str, answer: str, _seconds: float) -> int:
        questions.append(question)
        return answers[answer].pop(0) if len(answers[answer]) > 1 else answers[answer][0]

    monkeypatch.setattr("agent.console.ask", ask)
    return answers, questions


@pytest.fixture
def here(config: AgentConfig, left_behind: Leave) -> Guest:
    left_behind(tap="sw0", network=NetworkMode.BRIDGE, measured=MeasuredPerformance(memory_mib=91))
    return ShardHost(config).guest(ShardId("s1"))


def test_each_way_of_the_network_is_measured_where_it_is_limited(
    here: Guest, asked: tuple[Answers, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked[0].update(cpu_rounds_per_second=[9], read_iops=[50], received_kbit_per_second=[4990], flooded_bytes=[1 << 20])
    monkeypatch.setattr("agent.network.flood", lambda *_: None)
    monkeypatch.setattr("agent.network.taken_mbps", lambda _tap, _mac, _address, _seconds: 5.01)
    asyncio.run(measure(here, 2))
    assert (here.record.measured.receive_mbps, here.record.measured.send_mbps) == (None, None)  # nothing limits it
    here.save(resources=Resources(vcpus=1, memory_gib=0.125, storage_iops=50, network_mbps=5))
    asyncio.run(measure(here, 2))
    found = here.record.measured
    assert (found.cpu_rounds_per_second, found.read_iops, found.receive_mbps, found.send_mbps) == (9, 50, 4.99, 5.01)
    assert asked[1][-2:] == ["received 2", "flood 4 10.9.255.254"]
    assert "disk 100" in asked[1]


def test_memory_is_asked_for_until_the_guest_counts_it(here: Guest, asked: tuple[Answers, list[str]]) -> None:
    asked[0]["memory_kib"] = [mib * 1024 for mib in (91, 120, 203, 219, 220)]
    asyncio.run(measure_memory(here, 128))
    assert here.record.measured.memory_mib == 219  # at 203 it was still at it
    asked[0]["memory_kib"] = [mib * 1024 for mib in (219, 107, 92, 91)]
    asyncio.run(measure_memory(here, -128))
    assert here.record.measured.memory_mib == 92


def test_a_count_that_is_not_what_was_plugged_in_is_taken_once_it_stays(
    here: Guest, asked: tuple[Answers, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.measuring._SETTLED_SECONDS", 0.1)
    asked[0]["memory_kib"] = [mib * 1024 for mib in (91, 180, 207)]
    asyncio.run(measure_memory(here, 128))
    assert here.record.measured.memory_mib == 207
    assert len(asked[1]) >= 4


def test_memory_that_never_shows_is_an_error(
    here: Guest, asked: tuple[Answers, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.memory_size.LONGEST_SECONDS", 0.1)
    asked[0]["memory_kib"] = [91 * 1024]
    with pytest.raises(MoveFailed, match="count of its memory"):
        asyncio.run(measure_memory(here, 128))


def test_an_image_that_does_not_speak_is_not_asked(here: Guest, asked: tuple[Answers, list[str]]) -> None:
    file = ImageFile(source="k", sha256="a" * 64)
    own = WorkloadImage(name="mine", kernel=file, ready=ReadyCheck(console="up"))
    here.save(profile=PROFILE.model_copy(update={"image": own}))
    with pytest.raises(NotFound, match="does not measure itself"):
        asyncio.run(measure(here, 1))
    asyncio.run(measure_memory(here, 128))
    assert asked[1] == []
