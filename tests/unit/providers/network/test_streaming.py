import asyncio
from collections.abc import Sequence

from providers.network.streaming import event_stream
from providers.network.wire_records import AnyEvent, GapEvent
from tests.unit.providers.network.networks import START


def _event(number: int) -> GapEvent:
    return GapEvent(event_id=number, at=START)


def test_it_tells_what_is_there_and_goes_on_from_it() -> None:
    asked: list[int] = []
    happened = [[_event(4), _event(6)], [_event(7)], []]

    def after(event_id: int) -> Sequence[AnyEvent]:
        asked.append(event_id)
        return happened.pop(0) if happened else []

    async def read() -> bytes:
        return b"".join([chunk async for chunk in event_stream(after, 3, 0.3)])

    text = asyncio.run(read()).decode()
    assert [line for line in text.splitlines() if line.startswith("id: ")] == ["id: 4", "id: 6", "id: 7"]
    assert asked[:3] == [3, 6, 7]
    assert text.startswith(": "), "a first comment opens the connection"
