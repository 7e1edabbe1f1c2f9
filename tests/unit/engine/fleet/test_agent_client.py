import random
from collections.abc import Callable

import httpx
import pytest

from agent.wire import MoveCommand, Problem
from engine.clock import ManualClock
from engine.errors import (
    InsufficientCapacity,
    ProviderAnswerInvalid,
    ProviderUnavailable,
    ShardwrightError,
    StaleEpoch,
)
from engine.fleet.agent_client import AgentClient
from engine.model.ids import MoveId, NodeId, ShardId

Handler = Callable[[httpx.Request], httpx.Response]
SHARD = ShardId("s1")


def client(handler: Handler, clock: ManualClock) -> AgentClient:
    http = httpx.Client(transport=httpx.MockTransport(handler))
    return AgentClient(NodeId("n1"), "https://10.0.0.1:7443/", http, clock, random.Random(1))


@pytest.mark.parametrize("kind", [StaleEpoch, InsufficientCapacity])
def test_the_agents_error_comes_out_as_itself(clock: ManualClock, kind: type[ShardwrightError]) -> None:
    problem = Problem(error=kind.__name__, what="no", why="because", next_step="try else")
    agent = client(lambda _request: httpx.Response(412, content=problem.model_dump_json()), clock)
    with pytest.raises(kind) as caught:
        agent.resume(SHARD, MoveCommand(move=MoveId("m"), epoch=1))
    assert (caught.value.what, caught.value.why, caught.value.next_step) == ("no (node n1)", "because", "try else")


@pytest.mark.parametrize("name", ["NoSuchError", "ExitCode", "IntEnum", "__builtins__"])
def test_only_our_errors_are_raised_by_name(clock: ManualClock, name: str) -> None:
    problem = Problem(error=name, what="no")
    agent = client(lambda _request: httpx.Response(500, content=problem.model_dump_json()), clock)
    with pytest.raises(ShardwrightError) as caught:
        agent.status()
    assert type(caught.value) is ShardwrightError


@pytest.mark.parametrize("answer", [httpx.Response(200, text="<html>"), httpx.Response(502, text="bad gateway")])
def test_rubbish_is_named_as_such(clock: ManualClock, answer: httpx.Response) -> None:
    with pytest.raises(ProviderAnswerInvalid):
        client(lambda _request: answer, clock).status()


def test_a_silent_agent_is_asked_three_times(clock: ManualClock) -> None:
    asked: list[str] = []
    began = clock.now()

    def refuse(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        raise httpx.ConnectError("refused", request=request)

    with pytest.raises(ProviderUnavailable, match="n1 does not answer"):
        client(refuse, clock).status()
    assert len(asked) == 3
    assert 0 < (clock.now() - began).total_seconds() < 1


def test_a_call_that_may_still_be_under_way_is_not_sent_again(clock: ManualClock) -> None:
    asked: list[str] = []

    def slow(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        raise httpx.ReadTimeout("slow", request=request)

    with pytest.raises(ProviderUnavailable):
        client(slow, clock).status()
    assert len(asked) == 1


def test_the_certificate_is_checked_against_the_nodes_name(clock: ManualClock) -> None:
    seen: list[str] = []

    def note(request: httpx.Request) -> httpx.Response:
        seen.append(request.extensions["sni_hostname"])
        return httpx.Response(204)

    client(note, clock).release(SHARD, 1)
    assert seen == ["n1"]
