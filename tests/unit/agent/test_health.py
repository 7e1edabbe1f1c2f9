"""The agent's health checks over guests that are plain processes, with a probe and a control plane that are told."""

import asyncio
from collections.abc import Callable

import pytest

from agent import health
from agent.config import AgentConfig
from agent.guest import GuestRecord
from agent.health import REPORT_SECONDS, TICK_SECONDS, HealthKeeper, Tally, counted, probe_guest
from agent.node_guest import Guest
from agent.probe_port import PortAnswer
from agent.shards import ShardHost
from agent.wire import HealthOrders, HealthRequest, OrderedCheck, ReportedHealth
from engine.errors import ProviderUnavailable
from engine.model.composite import HealthCheck, HealthState
from engine.model.ids import MoveId, ShardId
from tests.unit.agent.test_moves import S1, ScriptedMonitor

CHECK = HealthCheck(interval_seconds=2, rise=2, fall=3)
WELL, ILL = PortAnswer(open=True), PortAnswer(open=False, reason="port 7000 is closed")
Leave = Callable[..., GuestRecord]


def after(*answers: PortAnswer, start: HealthState = HealthState.UNKNOWN) -> HealthState:
    tally = Tally(state=start)
    for answer in answers:
        tally = counted(tally, answer, CHECK)
    return tally.state


def test_it_takes_several_answers_in_a_row_to_change_a_state() -> None:
    assert after(WELL) is HealthState.UNKNOWN
    assert after(WELL, WELL) is HealthState.HEALTHY
    assert after(ILL, ILL, start=HealthState.HEALTHY) is HealthState.HEALTHY
    assert after(ILL, ILL, WELL, ILL, ILL, start=HealthState.HEALTHY) is HealthState.HEALTHY
    assert after(ILL, ILL, ILL, start=HealthState.HEALTHY) is HealthState.UNHEALTHY
    assert after(WELL, ILL, WELL, start=HealthState.UNHEALTHY) is HealthState.UNHEALTHY
    assert after(WELL, WELL, start=HealthState.UNHEALTHY) is HealthState.HEALTHY


class Post:
    """One guest, its agent, a probe that answers ``answer``, a control plane that orders ``ordered`` or is away."""

    def __init__(self, config: AgentConfig) -> None:
        self.host = ShardHost(config)
        self.host.epochs.accept(S1, 4)
        self.now, self.probes, self.answer, self.away = 100.0, 0, WELL, False
        self.ordered = (OrderedCheck(shard=S1, check=CHECK),)
        self.told: list[tuple[ReportedHealth, ...]] = []
        self.keeper = HealthKeeper(self.host, self._ask, probe=self._probe, monotonic=lambda: self.now)

    async def _ask(self, request: HealthRequest) -> HealthOrders:
        if self.away:
            raise ProviderUnavailable("nobody there")
        self.told.append(request.shards)
        return HealthOrders(checks=self.ordered)

    async def _probe(self, guest: Guest, check: HealthCheck) -> PortAnswer:
        assert (guest.record.shard, check) == (S1, CHECK)
        self.probes += 1
        return self.answer

    def pass_time(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            asyncio.run(self.keeper.tick())
            self.now += TICK_SECONDS

    @property
    def state(self) -> HealthState:
        return self.told[-1][0].state


@pytest.fixture
def post(config: AgentConfig, left_behind: Leave) -> Post:
    left_behind()
    return Post(config)


def test_what_is_ordered_is_checked_at_its_interval_and_changes_are_told_at_once(post: Post) -> None:
    post.pass_time(10)
    assert 4 <= post.probes <= 5
    assert (post.told[0][0].state, post.told[0][0].epoch) == (HealthState.UNKNOWN, 4)
    assert post.state is HealthState.HEALTHY
    post.answer = ILL
    told = len(post.told)
    post.pass_time(7)
    assert post.told[-1][0] == ReportedHealth(shard=S1, epoch=4, state=HealthState.UNHEALTHY, reason=ILL.reason)
    assert len(post.told) - told <= 7 / REPORT_SECONDS + 2


def test_nothing_is_checked_that_nobody_asked_for(post: Post) -> None:
    post.ordered = ()
    post.pass_time(10)
    assert post.probes == 0
    assert post.state is HealthState.UNKNOWN


def test_orders_stay_while_the_control_plane_is_away_and_the_state_is_told_when_it_is_back(post: Post) -> None:
    post.pass_time(6)
    post.away, post.answer = True, ILL
    post.pass_time(10)
    assert post.state is HealthState.HEALTHY  # as it was last heard
    post.away = False
    post.pass_time(6)
    assert post.state is HealthState.UNHEALTHY


def test_a_guest_that_lives_elsewhere_is_not_told_of(post: Post) -> None:
    post.host.guests[S1].save(ceded_epoch=5)
    post.pass_time(6)
    assert (post.told, post.probes) == ([], 0)


def test_a_guest_in_a_switchover_is_not_ill(post: Post) -> None:
    post.pass_time(6)
    probes = post.probes
    post.host.guests[S1].save(move=MoveId("m"))

    async def busy() -> None:
        async with post.host.guests[S1].busy:
            post.now += 10
            await post.keeper.tick()

    asyncio.run(busy())
    assert post.probes == probes


@pytest.mark.parametrize("running", [True, False])
def test_without_a_tap_a_guest_is_well_as_long_as_it_runs(
    config: AgentConfig, left_behind: Leave, running: bool
) -> None:
    left_behind()
    host = ShardHost(config)
    host.guests[S1].monitor = ScriptedMonitor(running=running)  # type: ignore[assignment]
    found = asyncio.run(probe_guest(host.guests[S1], CHECK))
    assert found == (WELL if running else PortAnswer(open=False, reason="the guest is paused"))


def test_a_dead_guest_is_ill(config: AgentConfig, left_behind: Leave) -> None:
    left_behind("s2", alive=False)
    found = asyncio.run(probe_guest(ShardHost(config).guests[ShardId("s2")], CHECK))
    assert found.reason == "the guest is dead"


def test_a_check_that_takes_long_holds_nobody_else_up(
    config: AgentConfig, left_behind: Leave, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "TICK_SECONDS", 0.01)
    slow = ShardId("s2")
    left_behind()
    left_behind("s2")
    host, now, answered, asked = ShardHost(config), 100.0, asyncio.Event(), list[ShardId]()
    told: list[dict[ShardId, HealthState]] = []

    async def ask(request: HealthRequest) -> HealthOrders:
        told.append({one.shard: one.state for one in request.shards})
        return HealthOrders(checks=tuple(OrderedCheck(shard=shard, check=CHECK) for shard in (S1, slow)))

    async def probe(here: Guest, _check: HealthCheck) -> PortAnswer:
        asked.append(here.record.shard)
        if here.record.shard == slow:
            await answered.wait()
        return WELL

    async def go() -> None:
        nonlocal now
        keeper = HealthKeeper(host, ask, probe=probe, monotonic=lambda: now)
        for _ in range(4):
            await keeper.tick()
            now += CHECK.interval_seconds
        assert told[-1] == {S1: HealthState.HEALTHY, slow: HealthState.UNKNOWN}
        assert (asked.count(S1), asked.count(slow)) == (3, 1)  # it is not asked again while it is asked
        answered.set()
        for _ in range(2):
            await keeper.tick()
            now += CHECK.interval_seconds
        assert told[-1][slow] is HealthState.HEALTHY

    asyncio.run(asyncio.wait_for(go(), 10))


def test_a_check_that_fails_as_nobody_thought_is_logged_and_the_others_go_on(
    post: Post, caplog: pytest.LogCaptureFixture
) -> None:
    async def probe(_guest: Guest, _check: HealthCheck) -> PortAnswer:
        raise ValueError("nobody thought of that")

    post.keeper._probe = probe
    post.pass_time(6)
    assert "could not be checked" in caplog.text
    assert post.state is HealthState.UNKNOWN
