"""Events as they happen: server-sent events that a client can resume where it broke off.

Every event carries its id; who comes back names the last one it saw in ``Last-Event-ID`` and gets what came after. A
comment goes out when nothing happens, so that a dead connection is noticed on both sides.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

from fastapi.sse import format_sse_event
from starlette.concurrency import run_in_threadpool

from providers.network.wire_records import AnyEvent

_LOOK_SECONDS = 0.2
_KEEP_ALIVE_SECONDS = 15.0

After = Callable[[int], Sequence[AnyEvent]]
"""Event id -> what happened behind it."""


async def event_stream(after: After, last_seen: int, wait_seconds: float) -> AsyncIterator[bytes]:
    """Everything behind ``last_seen``, then what happens within ``wait_seconds``; the client comes back for more."""
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + wait_seconds
    told_at = loop.time()
    yield format_sse_event(comment="open-capacity")
    while True:
        for event in await run_in_threadpool(after, last_seen):
            last_seen, told_at = event.event_id, loop.time()
            yield format_sse_event(data_str=event.model_dump_json(), event=event.type, id=str(event.event_id))
        if loop.time() >= ends_at:
            return
        if loop.time() - told_at >= _KEEP_ALIVE_SECONDS:
            told_at = loop.time()
            yield format_sse_event(comment="alive")
        await asyncio.sleep(min(_LOOK_SECONDS, max(0.0, ends_at - loop.time())))
