import asyncio

import pytest

from agent import overlay_sync
from agent.overlay_sync import OverlaySync
from agent.overlay_wire import OverlayRequest, OverlayView
from engine.errors import ConfigurationError, ProviderUnavailable, StaleEpoch

KEY = "A" * 43 + "="


class Applied:
    """Stands for agent.overlay.Overlay."""

    public_key = KEY

    def __init__(self) -> None:
        self.generations: list[int] = []

    def apply(self, view: OverlayView) -> None:
        if self.generations and view.generation < self.generations[-1]:
            raise StaleEpoch("of the past")
        self.generations.append(view.generation)


def view(generation: int) -> OverlayView:
    return OverlayView(generation=generation, tunnel="10.99.0.1", peers=(), entries=())


def test_it_asks_with_what_it_has_applied() -> None:
    asked: list[OverlayRequest] = []

    async def ask(request: OverlayRequest) -> OverlayView:
        asked.append(request)
        return view(len(asked) * 3)

    applied = Applied()
    sync = OverlaySync(applied, "192.0.2.1:51820", ask)  # type: ignore[arg-type]

    async def twice() -> None:
        await sync.follow()
        assert sync.ready.is_set()
        await sync.follow()

    asyncio.run(twice())
    assert [one.generation for one in asked] == [0, 3]
    assert {(one.public_key, one.endpoint) for one in asked} == {(KEY, "192.0.2.1:51820")}
    assert applied.generations == [3, 6]


def test_no_answer_and_a_stale_one_are_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlay_sync, "_FIRST_PAUSE", 0.0)
    answers: list[OverlayView | Exception] = [view(5), ProviderUnavailable("away"), view(4), view(6)]

    async def ask(_request: OverlayRequest) -> OverlayView:
        if not answers:
            await asyncio.sleep(3600)
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    applied = Applied()

    async def go() -> None:
        task = asyncio.create_task(OverlaySync(applied, "192.0.2.1:1", ask).run())  # type: ignore[arg-type]
        while applied.generations != [5, 6]:
            await asyncio.sleep(0)
        task.cancel()

    asyncio.run(asyncio.wait_for(go(), 10))


def test_a_host_whose_own_address_is_none_says_so_and_asks_nobody() -> None:
    async def ask(_request: OverlayRequest) -> OverlayView:
        raise AssertionError("nobody is asked")

    sync = OverlaySync(Applied(), "10.0.0.300:51820", ask)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"could reach the tunnel at 10\.0\.0\.300:51820"):
        asyncio.run(sync.follow())
