import asyncio
import time

import pytest
import structlog

from agent.overlay_wire import OverlayRequest
from engine.errors import AuthenticationFailed
from engine.fleet import overlay as desk_module
from engine.fleet.overlay import OverlayDesk
from engine.model.ids import NodeId
from engine.store.database import Database
from engine.store.overlay_map import OverlayMap

HOST, OTHER = NodeId("gate"), NodeId("other")


def request(generation: int, letter: str = "A") -> OverlayRequest:
    return OverlayRequest(public_key=letter * 42 + "A=", endpoint="192.0.2.1:51820", generation=generation)


@pytest.fixture
def store(database: Database) -> OverlayMap:
    made = OverlayMap(database)
    for name in (HOST, OTHER):
        made.add_gateway(name, "shop")
    return made


def test_who_knows_less_is_answered_at_once(store: OverlayMap) -> None:
    view = asyncio.run(OverlayDesk(store).view(HOST, request(0)))
    assert view.generation == store.generation() > 0


def test_who_is_not_part_of_it_is_refused(store: OverlayMap) -> None:
    with pytest.raises(AuthenticationFailed):
        asyncio.run(OverlayDesk(store).view(NodeId("stranger"), request(0)))


def test_a_change_answers_who_waits(store: OverlayMap, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk_module, "LOOK_SECONDS", 3600.0)
    desk = OverlayDesk(store, wait_seconds=30)

    async def go() -> tuple[int, int, float]:
        watching = asyncio.create_task(desk.watch())
        known = (await desk.view(HOST, request(0))).generation
        waiting = asyncio.create_task(desk.view(HOST, request(known)))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        began = time.monotonic()
        await desk.view(OTHER, request(0, "B"))
        view = await waiting
        watching.cancel()
        return known, view.generation, time.monotonic() - began

    known, found, took = asyncio.run(go())
    assert found == known + 1
    assert took < 10


def test_whoever_makes_changes_goes_first_and_several_are_one_answer(
    store: OverlayMap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk_module, "LOOK_SECONDS", 3600.0)
    monkeypatch.setattr(desk_module, "SETTLE_SECONDS", 3600.0)
    desk = OverlayDesk(store, wait_seconds=30)

    async def go() -> int:
        watching = asyncio.create_task(desk.watch())
        known = (await desk.view(HOST, request(0))).generation
        waiting = asyncio.create_task(desk.view(HOST, request(known)))
        for name in ("third", "fourth"):
            await asyncio.sleep(0.05)
            store.add_gateway(NodeId(name), "shop")
            desk.changed()
        await asyncio.sleep(0.05)
        assert not waiting.done()
        desk.close()  # whoever waits then is answered all the same
        view = await waiting
        watching.cancel()
        return view.generation - known

    assert asyncio.run(asyncio.wait_for(go(), 20)) == 2


def test_so_does_a_change_that_another_process_has_made(store: OverlayMap, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk_module, "LOOK_SECONDS", 0.01)
    desk = OverlayDesk(store, wait_seconds=30)

    async def go() -> int:
        watching = asyncio.create_task(desk.watch())
        known = (await desk.view(HOST, request(0))).generation
        waiting = asyncio.create_task(desk.view(HOST, request(known)))
        await asyncio.sleep(0.05)
        store.remove_gateway(OTHER)
        view = await waiting
        watching.cancel()
        return view.generation - known

    assert asyncio.run(asyncio.wait_for(go(), 20)) == 1


@pytest.mark.parametrize("failure", [OSError("no file left"), RuntimeError("can't start new thread")])
def test_it_goes_on_watching_whatever_the_store_raises(
    store: OverlayMap, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    monkeypatch.setattr(desk_module, "LOOK_SECONDS", 0.01)
    looks = []

    def generation() -> int:
        looks.append(failure)
        raise failure

    async def go() -> None:
        watching = asyncio.create_task(OverlayDesk(store).watch())
        while len(looks) < 2:
            await asyncio.sleep(0)
            assert not watching.done()
        watching.cancel()

    monkeypatch.setattr(store, "generation", generation)
    with structlog.testing.capture_logs() as logs:
        asyncio.run(asyncio.wait_for(go(), 20))
    assert str(failure) in logs[0]["error"]


def test_without_a_change_the_answer_comes_in_time_all_the_same(store: OverlayMap) -> None:
    desk = OverlayDesk(store, wait_seconds=0.05)

    async def go() -> tuple[int, int]:
        first = await desk.view(HOST, request(0))
        return first.generation, (await desk.view(HOST, request(first.generation))).generation

    first, second = asyncio.run(go())
    assert first == second


def test_closing_answers_everybody(store: OverlayMap) -> None:
    desk = OverlayDesk(store, wait_seconds=3600)

    async def go() -> None:
        watching = asyncio.create_task(desk.watch())
        known = (await desk.view(HOST, request(0))).generation
        waiting = asyncio.create_task(desk.view(HOST, request(known)))
        await asyncio.sleep(0.05)
        desk.close()
        assert (await asyncio.wait_for(waiting, 10)).generation == known
        watching.cancel()

    asyncio.run(go())
