"""The web pages: server-rendered, readable without scripts; the charts come from Plotly's own file in its package."""

from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, HTMLResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from engine.api.view import ControlView
from engine.model.capacity import CapacityTarget
from engine.model.plan import Verdict

_HERE = Path(__file__).parent
_STATIC = {"style.css": "text/css", "charts.js": "text/javascript"}
_FAN = (0.05, 0.25, 0.5, 0.75, 0.95)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda share: f"{share:.1%}"
    environment.filters["money"] = lambda money: f"{money.amount:,.4f} {money.currency}"
    environment.filters["when"] = lambda moment: moment.strftime("%Y-%m-%d %H:%M:%S UTC")
    return environment


def pages(view: ControlView) -> APIRouter:
    router = APIRouter(default_response_class=HTMLResponse, include_in_schema=False)

    def page(request: Request, name: str, **facts: Any) -> HTMLResponse:
        template = _environment().get_template(f"{name}.html")
        return HTMLResponse(template.render(title=view.name, here=request.url.path, **facts))

    @router.get("/")
    def overview(request: Request) -> Response:
        shards = view.shards()
        return page(
            request,
            "overview",
            nodes=view.nodes(),
            shards=shards,
            plan=view.plan(),
            moves=view.moves(),
            targets=view.targets(),
            charts=[fan_chart(target) for target in view.targets()],
        )

    @router.get("/plan")
    def plan(request: Request) -> Response:
        return page(request, "plan", plan=view.plan(), chosen=Verdict.CHOSEN)

    @router.get("/bills")
    def bills(request: Request) -> Response:
        return page(request, "bills", bill=view.bills())

    @router.get("/static/plotly.js")
    def plotly() -> Response:
        package = Path(str(import_module("plotly").__file__)).parent / "package_data" / "plotly.min.js"
        return FileResponse(package, media_type="text/javascript")

    @router.get("/static/{name}")
    def static(name: str) -> Response:
        if name not in _STATIC:
            return Response(status_code=404)
        return FileResponse(_HERE / "static" / name, media_type=_STATIC[name])

    return router


def fan_chart(target: CapacityTarget) -> dict[str, Any]:
    """Series for one pool's fan: times and whole shards by quantile (nearest stored quantile)."""
    times = [step.start.isoformat() for step in target.steps]
    lines = {}
    for wanted in _FAN:
        lines[f"{wanted:.2f}"] = [_nearest(step.shards_by_quantile, wanted) for step in target.steps]
    return {
        "pool": target.pool.id,
        "times": times,
        "lines": lines,
        "current": target.current,
        "desired": target.desired,
    }


def _nearest(quantiles: tuple[tuple[float, int], ...], wanted: float) -> int:
    return min(quantiles, key=lambda pair: abs(pair[0] - wanted))[1]
