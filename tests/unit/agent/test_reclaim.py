import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from agent.config import MetadataFlavour
from agent.reclaim import MetadataWatch, watch
from agent.wire import NoticeReport
from engine.clock import ManualClock
from engine.errors import ProviderAnswerInvalid, ProviderUnavailable
from engine.model.ids import NodeId

Handler = Callable[[httpx.Request], httpx.Response]


def look(handler: Handler, flavour: MetadataFlavour, clock: ManualClock) -> NoticeReport | None:
    async def once() -> NoticeReport | None:
        transport = httpx.MockTransport(handler)
        metadata = MetadataWatch("http://metadata", flavour, NodeId("n1"), clock, transport)
        try:
            return await metadata.look()
        finally:
            await metadata.close()

    return asyncio.run(once())


def test_aws_asks_with_a_token_and_reads_the_time(clock: ManualClock) -> None:
    def serve(request: httpx.Request) -> httpx.Response:
        if request.method == "PUT":
            assert request.headers["X-aws-ec2-metadata-token-ttl-seconds"]
            return httpx.Response(200, text="TOKEN")
        assert request.headers["X-aws-ec2-metadata-token"] == "TOKEN"
        assert request.url.path == "/latest/meta-data/spot/instance-action"
        return httpx.Response(200, json={"action": "terminate", "time": "2026-11-23T12:02:00Z"})

    notice = look(serve, MetadataFlavour.AWS, clock)
    assert notice == NoticeReport(seen_at=clock.now(), at=datetime(2026, 11, 23, 12, 2, tzinfo=UTC), reason="terminate")


def test_aws_without_a_notice_answers_404(clock: ManualClock) -> None:
    def serve(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, text="T") if request.method == "PUT" else httpx.Response(404)

    assert look(serve, MetadataFlavour.AWS, clock) is None


@pytest.mark.parametrize(("text", "noticed"), [("TRUE", True), ("FALSE", False), ("", False)])
def test_google_gives_thirty_seconds(clock: ManualClock, text: str, noticed: bool) -> None:
    def serve(request: httpx.Request) -> httpx.Response:
        assert request.headers["Metadata-Flavor"] == "Google"
        return httpx.Response(200, text=text)

    notice = look(serve, MetadataFlavour.GCP, clock)
    assert (notice is not None) == noticed
    if notice:
        assert notice.at - notice.seen_at == timedelta(seconds=30)


def test_azure_reads_preempt_events_only(clock: ManualClock) -> None:
    events = [
        {"EventType": "Reboot", "NotBefore": "Mon, 23 Nov 2026 11:00:00 GMT"},
        {"EventType": "Preempt", "NotBefore": "Mon, 23 Nov 2026 12:00:30 GMT", "Resources": ["n1"]},
    ]

    def serve(request: httpx.Request) -> httpx.Response:
        assert request.headers["Metadata"] == "true"
        return httpx.Response(200, json={"DocumentIncarnation": 2, "Events": events})

    notice = look(serve, MetadataFlavour.AZURE, clock)
    assert notice is not None
    assert (notice.at - clock.now(), notice.reason) == (timedelta(seconds=30), "preempt")
    events.pop()
    assert look(serve, MetadataFlavour.AZURE, clock) is None


def test_a_network_lists_notices_and_only_ours_counts(clock: ManualClock) -> None:
    notices = [{"node": "other", "at": "2026-11-23T12:05:00Z", "reason": "x", "instance_id": "i", "seen_at": "…"}]

    def serve(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=notices)

    assert look(serve, MetadataFlavour.NETWORK, clock) is None
    notices.append({"node": "n1", "at": "2026-11-23T12:05:00Z", "reason": "outbid"})
    found = look(serve, MetadataFlavour.NETWORK, clock)
    assert found is not None
    assert found.reason == "outbid"


@pytest.mark.parametrize("flavour", [MetadataFlavour.AZURE, MetadataFlavour.NETWORK])
def test_rubbish_is_named_as_such(clock: ManualClock, flavour: MetadataFlavour) -> None:
    with pytest.raises(ProviderAnswerInvalid):
        look(lambda _request: httpx.Response(200, text="<html>"), flavour, clock)


def test_a_silent_metadata_address_is_unavailable(clock: ManualClock) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    with pytest.raises(ProviderUnavailable):
        look(refuse, MetadataFlavour.GCP, clock)


def test_a_notice_is_reported_until_the_control_plane_has_it(clock: ManualClock) -> None:
    notice = NoticeReport(seen_at=clock.now(), at=clock.now(), reason="r")
    looks: list[NoticeReport | None] = [None, notice]
    reports: list[NoticeReport] = []
    pauses: list[float] = []

    async def seen() -> NoticeReport | None:
        return looks.pop(0)

    async def report(found: NoticeReport) -> None:
        reports.append(found)
        if len(reports) < 3:
            raise ProviderUnavailable("down")

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    assert asyncio.run(watch(seen, report, every_seconds=5.0, sleep=pause)) == notice
    assert len(reports) == 3
    assert pauses == [5.0, 1.0, 1.0]
