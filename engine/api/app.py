"""The HTTP face of the control plane: JSON under /v1, pages under /. No rules inside."""

import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.responses import PlainTextResponse, Response, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, ConfigDict, Field
from starlette.middleware.base import RequestResponseEndpoint
from starlette.middleware.trustedhost import TrustedHostMiddleware

from engine import metrics
from engine.api.bill_csv import bill_csv
from engine.api.problems import PROBLEM_JSON, Problem, answer_to_defect, answer_with_problems
from engine.api.view import BillView, ControlView, ShardView, serving_replica
from engine.clock import Clock, SystemClock
from engine.errors import ShardwrightError
from engine.model.capacity import CapacityTarget, Resources
from engine.model.move import MoveReport, MoveUnderWay
from engine.model.placement import Node, ShardQuery, ShardState
from engine.model.plan import Plan
from engine.namespace.names import parse, parse_query
from engine.web.pages import pages

_LOG = logging.getLogger("engine.api")
LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
"""Nothing is loaded from elsewhere and nobody frames the page; the charts set styles of their own."""


_BILLS_EVERY = timedelta(minutes=1)
"""Sums are read for them, one for each node that was ever billed."""


_Least = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _ShardFilter(BaseModel):
    """Query parameters of ``/v1/shards``."""

    model_config = ConfigDict(extra="forbid")
    type: str | None = None
    provider: str | None = None
    region: str | None = None
    state: ShardState | None = None
    vcpus: _Least = 0
    memory_gib: _Least = 0
    storage_iops: _Least = 0
    network_mbps: _Least = 0

    def as_query(self) -> ShardQuery:
        wanted = Resources(**{name: getattr(self, name) for name in Resources.model_fields})
        return ShardQuery(
            shard_type=self.type, provider=self.provider, region=self.region, state=self.state, at_least=wanted
        )


def control_app(view: ControlView, *, hosts: Sequence[str] = LOOPBACK, clock: Clock | None = None) -> FastAPI:
    """Routes over ``view``; errors become problem documents. ``clock``: None: the system's.

    ``hosts``: names under which the server may be asked (the Host header). Another site's page that points its own
    name at this address gets nothing. ``("*",)`` allows any.
    """
    app = FastAPI(title="Shardwright control plane", version="1", docs_url=None, redoc_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)

    @app.middleware("http")
    async def protected(request: Request, proceed: RequestResponseEndpoint) -> Response:
        try:
            response = await proceed(request)
        except Exception as defect:
            _LOG.exception("%s %s failed", request.method, request.url.path)
            response = answer_to_defect(request, defect)
        response.headers.update(_HEADERS)
        return response

    answer_with_problems(app)
    app.include_router(_facts(view), prefix="/v1")
    app.include_router(_operations(view, clock or SystemClock()))
    app.include_router(pages(view))
    return app


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Problem, "content": {PROBLEM_JSON: {}}} for status in statuses}


def _facts(view: ControlView) -> APIRouter:
    router = APIRouter(tags=["facts"])

    @router.get("/nodes")
    def nodes() -> Sequence[Node]:
        return view.nodes()

    @router.get("/shards", responses=_problems(400))
    def shards(query: Annotated[_ShardFilter, Query()]) -> Sequence[ShardView]:
        """Every parameter that is given must hold; performance is the measured one, where there is one."""
        return view.shards(query.as_query())

    @router.get("/plan")
    def plan() -> Plan | None:
        """The plan in force; null before the first round."""
        return view.plan()

    @router.get("/targets")
    def targets() -> Sequence[CapacityTarget]:
        return view.targets()

    @router.get("/moves")
    def moves() -> Sequence[MoveReport]:
        return view.moves()

    @router.get("/moves/under-way")
    def moves_under_way() -> Sequence[MoveUnderWay]:
        """Those that the history does not have yet, with what is left to copy."""
        return view.moves_under_way()

    @router.get("/bills")
    def bills() -> BillView:
        return view.bills()

    @router.get("/resolve", responses=_problems(400, 404))
    def resolve(name: str) -> ShardView:
        """Where ``shard://NAMESPACE/WORKLOAD/COMPONENT[/N]`` is now; without a number, a replica that serves."""
        query = parse_query(name)
        return serving_replica(view.replicas(query), query) if query.index is None else view.resolve(parse(name))

    @router.get("/replicas", responses=_problems(400, 404))
    def replicas(name: str) -> Sequence[ShardView]:
        """Every replica behind the name, those that serve first, and why the others do not."""
        return view.replicas(parse_query(name))

    return router


def _observe_bills(view: ControlView) -> None:
    """What is wrong with the bills is told where they are asked for, and hides nothing else."""
    try:
        bills = view.bills()
    except (ShardwrightError, ValueError) as problem:
        _LOG.warning("the bills are not told at /metrics: %s", problem)
        return
    metrics.observe_bills(bills.report, bills.reconciliation)


def _operations(view: ControlView, clock: Clock) -> APIRouter:
    router = APIRouter(tags=["operations"])
    one_scrape = Lock()
    bills_read = datetime.min.replace(tzinfo=UTC)

    @router.get("/healthz", response_class=PlainTextResponse)
    def healthy() -> str:
        return "ok"

    @router.get("/metrics", response_class=PlainTextResponse)
    def exposition() -> Response:
        """Prometheus text; what stands now is read from the store at each scrape, the ledger once a minute."""
        nonlocal bills_read
        with one_scrape:
            now = clock.now()
            if now - bills_read >= _BILLS_EVERY:
                bills_read = now
                _observe_bills(view)
            rows = view.shards()
            metrics.observe_fleet(view.nodes(), [row.shard for row in rows])
            metrics.observe_replicas((row.component, row.standing) for row in rows if row.component and row.standing)
            return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    @router.get("/bills.csv", response_class=StreamingResponse)
    def bill() -> Response:
        """The merged bill, one FOCUS row per charge."""
        attachment = {"Content-Disposition": 'attachment; filename="shardwright-bill.csv"'}
        return StreamingResponse(bill_csv(view.charges()), media_type="text/csv; charset=utf-8", headers=attachment)

    return router
