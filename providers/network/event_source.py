"""A buyer's side of a stream of events: read as it comes, within bounds of memory and of patience.

A server that is alive says so at least every ``silence``; one that says nothing, or drips bytes without ever finishing
an event, is taken for dead.
"""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

import httpx
from httpx_sse import EventSource, SSEError
from pydantic import ValidationError

from engine.errors import ProviderAnswerInvalid
from providers.network.wire_records import EVENT, AnyEvent

MAX_EVENT_BYTES = 64 * 1024
_BLANK_LINES = (b"\n\n", b"\r\n\r\n", b"\r\r")


def read_events(answer: httpx.Response, *, now: Callable[[], datetime], silence: timedelta) -> Iterator[AnyEvent]:
    """Event by event, for as long as ``answer`` lasts.

    Raises ProviderAnswerInvalid on what is no event of the API, httpx.ReadTimeout where nothing whole came in
    ``silence``.
    """
    headers = {"content-type": answer.headers.get("content-type", "")}
    bounded = httpx.Response(answer.status_code, headers=headers, stream=_Bounded(answer, now, silence))
    try:
        for sent in EventSource(bounded).iter_sse():
            if sent.data:
                yield EVENT.validate_json(sent.data)
    except (SSEError, ValidationError) as problem:
        path = answer.request.url.path
        raise ProviderAnswerInvalid(f"GET {path}: not a stream of events", why=type(problem).__name__) from None


class _Bounded(httpx.SyncByteStream):
    def __init__(self, answer: httpx.Response, now: Callable[[], datetime], silence: timedelta) -> None:
        self._answer, self._now, self._silence = answer, now, silence

    def __iter__(self) -> Iterator[bytes]:
        unfinished, tail, whole_at = 0, b"", self._now()
        for chunk in self._answer.iter_bytes():
            seen = tail + chunk
            end = max(seen.rfind(blank) + len(blank) if blank in seen else 0 for blank in _BLANK_LINES)
            if end:
                unfinished, whole_at = len(seen) - end, self._now()
            else:
                unfinished += len(chunk)
            if unfinished > MAX_EVENT_BYTES:
                raise ProviderAnswerInvalid(
                    f"GET {self._answer.request.url.path}: an event is larger than {MAX_EVENT_BYTES} bytes"
                )
            if self._now() - whole_at > self._silence:
                raise httpx.ReadTimeout("bytes drip in, but no event or sign of life is ever whole")
            tail = seen[end:][-3:]
            yield chunk
