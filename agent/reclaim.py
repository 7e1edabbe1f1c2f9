"""Watches for the provider taking this node back, where and how that provider announces it.

=======  ==============================================================  =======================
aws      /latest/meta-data/spot/instance-action with an IMDSv2 token      two minutes ahead
gcp      /computeMetadata/v1/instance/preempted                           thirty seconds
azure    /metadata/scheduledevents, events of type Preempt or Terminate   thirty seconds or more
network  /notices of the Open Capacity API's metadata                     as the notice says
=======  ==============================================================  =======================
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Annotated

import httpx
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from agent.config import MetadataFlavour
from agent.metadata import MetadataAddress, ok
from agent.wire import NoticeReport
from engine.clock import Clock
from engine.errors import ProviderAnswerInvalid, ShardwrightError
from engine.model.ids import NodeId
from engine.model.value import Utc

_GCP_NOTICE = timedelta(seconds=30)
EVERY_SECONDS = {
    MetadataFlavour.AWS: 5.0,
    MetadataFlavour.GCP: 1.0,
    MetadataFlavour.AZURE: 1.0,
    MetadataFlavour.NETWORK: 2.0,
}
"""Two minutes leave room for a slow poll; thirty seconds do not."""
_LOG = logging.getLogger("agent.reclaim")


class _Foreign(BaseModel):
    """A provider's own document: unknown fields are its business."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class _AwsAction(_Foreign):
    action: str
    time: Utc


class _AzureEvent(_Foreign):
    event_type: Annotated[str, Field(alias="EventType")]
    not_before: Annotated[str, Field(alias="NotBefore")] = ""


class _AzureEvents(_Foreign):
    events: Annotated[list[_AzureEvent], Field(alias="Events")]


class _NetworkNotice(_Foreign):
    node: str
    at: Utc
    reason: str = "reclaimed"


_NETWORK_NOTICES = TypeAdapter(list[_NetworkNotice])


class MetadataWatch:
    """Asks the metadata address of one flavour for a notice about this node."""

    def __init__(
        self,
        url: str,
        flavour: MetadataFlavour,
        node: NodeId,
        clock: Clock,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._node, self._clock, self._flavour = node, clock, flavour
        self._address = MetadataAddress(url, flavour, transport)

    async def look(self) -> NoticeReport | None:
        """One look. Raises ProviderUnavailable or ProviderAnswerInvalid."""
        asks = {
            MetadataFlavour.AWS: self._aws,
            MetadataFlavour.GCP: self._gcp,
            MetadataFlavour.AZURE: self._azure,
            MetadataFlavour.NETWORK: self._network,
        }
        try:
            return await asks[self._flavour]()
        except (ValidationError, ValueError) as problem:
            raise ProviderAnswerInvalid(
                "the metadata address answers nonsense", why=type(problem).__name__
            ) from problem

    async def close(self) -> None:
        await self._address.close()

    async def _aws(self) -> NoticeReport | None:
        answer = await self._address.get("/latest/meta-data/spot/instance-action")
        if answer.status_code == 404:
            return None
        said = _AwsAction.model_validate_json(ok(answer).content)
        return self._report(said.time, said.action)

    async def _gcp(self) -> NoticeReport | None:
        answer = await self._address.get("/computeMetadata/v1/instance/preempted")
        if ok(answer).text.strip().upper() != "TRUE":
            return None
        return self._report(self._clock.now() + _GCP_NOTICE, "preempted")

    async def _azure(self) -> NoticeReport | None:
        answer = await self._address.get("/metadata/scheduledevents", {"api-version": "2020-07-01"})
        for event in _AzureEvents.model_validate_json(ok(answer).content).events:
            if event.event_type in ("Preempt", "Terminate"):
                # An empty NotBefore means: it has begun.
                at = parsedate_to_datetime(event.not_before) if event.not_before else self._clock.now()
                return self._report(at if at.tzinfo else at.replace(tzinfo=UTC), event.event_type.lower())
        return None

    async def _network(self) -> NoticeReport | None:
        answer = await self._address.get("/notices")
        for notice in _NETWORK_NOTICES.validate_json(ok(answer).content):
            if notice.node == self._node:
                return self._report(notice.at, notice.reason)
        return None

    def _report(self, at: datetime, reason: str) -> NoticeReport:
        return NoticeReport(seen_at=self._clock.now(), at=at.astimezone(UTC), reason=reason)


async def watch(
    look: Callable[[], Awaitable[NoticeReport | None]],
    report: Callable[[NoticeReport], Awaitable[None]],
    *,
    every_seconds: float,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> NoticeReport:
    """Look until there is a notice, and report it until the control plane has it. Problems are logged once each."""
    notice: NoticeReport | None = None
    last_problem = ""
    while True:
        try:
            notice = notice or await look()
            if notice is not None:
                await report(notice)
                return notice
            last_problem = ""
        except ShardwrightError as problem:
            if str(problem) != last_problem:
                _LOG.warning("%s", problem)
            last_problem = str(problem)
        await sleep(every_seconds if notice is None else min(every_seconds, 1.0))
