"""What a network tells of what happened: events, bills, and that it is asked too often."""

import csv
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal

import httpx
from httpx_sse import EventSource, SSEError
from pydantic import ValidationError

from providers.network import wire
from providers.network.conformance.base import Cases, NotOffered, Unmet, require
from providers.network.conformance.probe import Probe, new_key, told
from providers.network.wire import ProblemCode
from providers.network.wire_records import EVENT, AnyEvent, CapacityEvent, EventList, WireBill, WireInvoice
from providers.retry import retry_after_seconds

case = Cases()
MOST_REQUESTS = 4_000
_AT_ONCE = 8


@case("events", "a hold changes the capacity, and that is told; ids only grow")
def events(probe: Probe) -> str:
    since = probe.clock.now() - timedelta(minutes=1)
    params = {"since": since.isoformat()}
    probe.read(probe.get("/v1/events", params=params), EventList)
    quote = probe.firm(anew=True)
    body = {"quote_id": quote.quote_id, "quantity": 1}
    probe.keep(probe.read(probe.post("/v1/holds", body, key=new_key()), wire.WireHold))
    found = probe.read(probe.get("/v1/events", params=params), EventList).events
    ids = [event.event_id for event in found]
    require(ids == sorted(set(ids)), "ids do not grow")
    told_of = [event for event in found if isinstance(event, CapacityEvent) and event.offer_id == quote.offer_id]
    require(bool(told_of), f"no capacity event of {quote.offer_id}")
    return f"{len(found)} events, {told_of[-1].available} free after the hold"


@case("event stream", "server-sent events with ids; Last-Event-ID resumes behind that event: none lost, none twice")
def event_stream(probe: Probe) -> str:
    _require_stream(probe)
    probe.hold()
    probe.get("/v1/events", params={"since": probe.clock.now().isoformat()})
    probe.clean_up()
    everything = _stream(probe, 0)
    if len(everything) < 2:
        raise NotOffered("fewer than two events to resume between")
    ids = [event.event_id for event in everything]
    require(ids == sorted(set(ids)), "ids do not grow")
    middle = ids[len(ids) // 2 - 1]
    resumed = [event.event_id for event in _stream(probe, middle)]
    require(
        resumed[: len(ids)] == [one for one in ids if one > middle], f"behind {middle}: {_few(resumed)} of {_few(ids)}"
    )
    return f"{len(ids)} events, {len(resumed)} behind the middle one"


@case("event stream from nowhere", "a Last-Event-ID that is none is refused as problem+json")
def stream_from_nowhere(probe: Probe) -> str:
    _require_stream(probe)
    headers = {"Last-Event-ID": "yesterday"}
    return probe.problem(probe.get("/v1/events/stream", headers=headers, params={"wait_seconds": 0}), (400, 422))


@case("bill", "FOCUS rows that sum exactly to the invoice, as JSON and as CSV")
def bill(probe: Probe) -> str:
    begin = probe.clock.now() - timedelta(seconds=1)
    probe.start(probe.hold())
    probe.wait(1.0)
    probe.clean_up()
    period = {"start": begin.isoformat(), "end": (probe.clock.now() + timedelta(seconds=1)).isoformat()}
    found = probe.read(probe.get("/v1/bills", params=period), WireBill)
    total = sum((row.billed_cost for row in found.rows), Decimal(0))
    require(bool(found.rows), "no row for a unit that ran")
    require(total == found.invoice.total.amount, f"rows sum to {total}, invoice {found.invoice.total.amount}")
    require(all(row.billing_currency == found.invoice.total.currency for row in found.rows), "two currencies")
    answer = probe.get("/v1/bills.csv", params=period)
    require(answer.status_code == httpx.codes.OK, told(answer))
    written = _sum_of_csv(answer)
    require(written == total, f"CSV sums to {written}, JSON to {total}")
    return f"{len(found.rows)} rows, {found.invoice.total.amount} {found.invoice.total.currency}"


@case("rate limit", "beyond the limit of its terms 429 problem+json with Retry-After, and after that time it answers")
def rate_limit(probe: Probe) -> str:
    limit = probe.terms.rate_limit
    if limit.burst > MOST_REQUESTS // 2:
        raise NotOffered(f"{limit.burst} requests at once are allowed: the suite sends no more than {MOST_REQUESTS}")

    def ask(_: int) -> httpx.Response:
        return probe.get("/v1/terms", patient=False)

    refused: httpx.Response | None = None
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for start in range(0, MOST_REQUESTS, 10 * _AT_ONCE):
            answers = list(pool.map(ask, range(start, start + 10 * _AT_ONCE)))
            refused = next((one for one in answers if one.status_code == httpx.codes.TOO_MANY_REQUESTS), None)
            if refused is not None:
                break
    if refused is None:
        raise NotOffered(f"{MOST_REQUESTS} requests were too slow to reach {limit.per_second:g} a second")
    seen = probe.problem(refused, 429, ProblemCode.RATE_LIMITED)
    seconds = retry_after_seconds(refused.headers, probe.clock.now())
    require(seconds is not None, "429 without Retry-After")
    assert seconds is not None
    probe.wait(seconds)
    again = probe.get("/v1/terms", patient=False)
    require(again.status_code == httpx.codes.OK, f"{again.status_code} after Retry-After")
    return f"{seen}, Retry-After {seconds:g}, then 200"


def _require_stream(probe: Probe) -> None:
    if not probe.terms.event_stream:
        raise NotOffered("its terms name no stream of events")


def _stream(probe: Probe, last_seen: int) -> Sequence[AnyEvent]:
    with probe.streamed("/v1/events/stream?wait_seconds=0", str(last_seen)) as answer:
        require(answer.status_code == httpx.codes.OK, str(answer.status_code))
        found = []
        try:
            for sent in EventSource(answer).iter_sse():
                event = EVENT.validate_json(sent.data)
                require(sent.id == str(event.event_id), f"id {sent.id} on event {event.event_id}")
                found.append(event)
        except (SSEError, ValidationError) as problem:
            raise Unmet(f"not a stream of events: {type(problem).__name__}") from None
        return found


def _sum_of_csv(answer: httpx.Response) -> Decimal:
    try:
        WireInvoice.model_validate_json(answer.headers.get("open-capacity-invoice", ""))
        rows = csv.DictReader(io.StringIO(answer.text))
        return sum((Decimal(row["BilledCost"]) for row in rows), Decimal(0))
    except (ValidationError, KeyError, ArithmeticError, csv.Error) as problem:
        raise Unmet(f"not a bill as CSV: {type(problem).__name__}") from None


def _few(ids: Sequence[int]) -> str:
    return f"{list(ids[:4])}…" if len(ids) > 4 else str(list(ids))
