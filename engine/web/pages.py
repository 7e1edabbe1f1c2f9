"""The web pages: server-rendered, readable without scripts; the charts come from Plotly's own file in its package."""

from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, HTMLResponse, Response

from engine.api.view import ControlView
from engine.errors import MissingPart, UnknownName
from engine.model.placement import ShardState
from engine.model.plan import MoveCause, OfferDecision, Verdict
from engine.web.outlook import outlook
from engine.web.rendering import render

_STATIC = {
    "style.css": "text/css",
    "charts.js": "text/javascript",
    "moments.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
_FOLDER = Path(__file__).parent / "static"


def pages(view: ControlView) -> APIRouter:
    """The pages and their files; nothing in them is fetched from elsewhere."""
    router = APIRouter(default_response_class=HTMLResponse, include_in_schema=False)

    def page(request: Request, name: str, **facts: Any) -> HTMLResponse:
        return HTMLResponse(render(name, title=view.name, here=request.url.path, **facts))

    @router.get("/")
    def overview(request: Request) -> Response:
        moves = sorted(view.moves(), key=lambda move: move.finished_at, reverse=True)
        return page(
            request,
            "overview",
            nodes=view.nodes(),
            shards=view.shards(),
            bound=ShardState.BOUND,
            plan=view.plan(),
            moves=moves,
            moves_ended=view.moves_ended(),
            under_way=view.moves_under_way(),
            gated=[move for move in moves if move.request.cause is MoveCause.COST and move.request.gate],
            outlooks=[outlook(target) for target in view.targets()],
            plotly=version("plotly"),
        )

    @router.get("/plan")
    def plan(request: Request) -> Response:
        current = view.plan()
        decisions = chosen_first(current.decisions) if current else ()
        return page(request, "plan", plan=current, decisions=decisions, chosen=Verdict.CHOSEN)

    @router.get("/bills")
    def bills(request: Request) -> Response:
        bill = view.bills()
        totals = {total.currency: total for total in bill.report.totals}
        return page(request, "bills", bill=bill, totals=totals)

    @router.get("/static/plotly.js")
    def plotly() -> Response:
        return FileResponse(
            _plotly_file(), media_type="text/javascript", headers={"Cache-Control": "max-age=86400, immutable"}
        )

    @router.get("/static/{name}")
    def static(name: str) -> Response:
        if name not in _STATIC:
            raise UnknownName(f"there is no file {name}")
        return FileResponse(_FOLDER / name, media_type=_STATIC[name])

    return router


def chosen_first(decisions: Sequence[OfferDecision]) -> tuple[OfferDecision, ...]:
    """Chosen rows, then the others; each by price per shard-hour, those without a price last."""

    def order(row: OfferDecision) -> tuple[bool, bool, Any, str]:
        price = row.price_per_shard_hour
        return row.verdict is not Verdict.CHOSEN, price is None, price.amount if price else 0, row.offer.id

    return tuple(sorted(decisions, key=order))


@cache
def _plotly_file() -> Path:
    """Found without importing the package, which is slow to load."""
    spec = find_spec("plotly")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "package_data" / "plotly.min.js"
        if path.is_file():
            return path
    raise MissingPart("Plotly's script is not installed", next_step="make setup")
