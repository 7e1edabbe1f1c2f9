"""The HTTP face of the control plane: JSON under /v1, pages under /. No rules inside."""

from collections.abc import Sequence

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from engine.api.view import BillView, ControlView, ShardView
from engine.errors import ShardwrightError, UnknownName, UsageError
from engine.model.capacity import CapacityTarget
from engine.model.move import MoveReport
from engine.model.placement import Node
from engine.model.plan import Plan
from engine.namespace.names import parse_name
from engine.web.pages import pages


def control_app(view: ControlView) -> FastAPI:
    """Routes over ``view``; errors of the vocabulary become problem documents."""
    app = FastAPI(title="Shardwright control plane", version="1", docs_url=None, redoc_url=None)

    @app.exception_handler(ShardwrightError)
    def problem(_: Request, error: ShardwrightError) -> JSONResponse:
        status = 404 if isinstance(error, UnknownName) else 400 if isinstance(error, UsageError) else 500
        body = {"title": error.what, "detail": error.why, "next_step": error.next_step, "status": status}
        return JSONResponse(body, status_code=status, media_type="application/problem+json")

    @app.get("/healthz")
    def healthy() -> Response:
        return PlainTextResponse("ok")

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/v1/nodes")
    def nodes() -> Sequence[Node]:
        return view.nodes()

    @app.get("/v1/shards")
    def shards() -> Sequence[ShardView]:
        return view.shards()

    @app.get("/v1/plan")
    def plan() -> Plan | None:
        return view.plan()

    @app.get("/v1/targets")
    def targets() -> Sequence[CapacityTarget]:
        return view.targets()

    @app.get("/v1/moves")
    def moves() -> Sequence[MoveReport]:
        return view.moves()

    @app.get("/v1/bills")
    def bills() -> BillView:
        return view.bills()

    @app.get("/v1/resolve")
    def resolve(name: str) -> ShardView:
        return view.resolve(parse_name(name))

    app.include_router(pages(view))
    return app
