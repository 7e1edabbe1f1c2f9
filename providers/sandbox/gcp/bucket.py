"""Cloud Storage's JSON API for one bucket: the billing export's files and the invoice, by invoice month."""

import hashlib
import json
from base64 import b64decode, b64encode
from datetime import datetime

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from engine.clock import Clock
from engine.model.value import Interval
from providers.sandbox.gcp.billing import Biller
from providers.sandbox.gcp.wire import Document, GoogleError, timestamp

_KEPT = 40
"""Objects of the newest runs that stay readable."""


class BillBucket:
    """``invoice_month=YYYYMM/RUN/export-000000000000.json`` with its ``invoice.json``.

    The scheduled query of a real project runs daily; here it runs whenever somebody lists the bucket.
    """

    def __init__(self, project: str, biller: Biller, clock: Clock) -> None:
        self._name = f"{project}-billing-export"
        self._biller, self._clock, self._opened = biller, clock, clock.now()
        self._objects: dict[str, bytes] = {}

    def routes(self) -> list[Route]:
        return [
            Route("/storage/v1/b/{bucket}/o", self._list),
            Route("/storage/v1/b/{bucket}/o/{name:path}", self._object),
        ]

    async def _list(self, request: Request) -> Response:
        self._own_bucket(request)
        self._export()
        prefix = request.query_params.get("prefix", "")
        items = [self._metadata(name, request) for name in self._objects if name.startswith(prefix)]
        return JSONResponse({"kind": "storage#objects", **({"items": items} if items else {})})

    async def _object(self, request: Request) -> Response:
        self._own_bucket(request)
        name: str = request.path_params["name"]
        if name not in self._objects:
            raise GoogleError(404, f"No such object: {self._name}/{name}")
        if request.query_params.get("alt") == "media":
            return Response(self._objects[name], media_type="application/octet-stream")
        return JSONResponse(self._metadata(name, request))

    def _export(self) -> None:
        run = f"{self._clock.now():%Y%m%dT%H%M%S.%fZ}"
        month = self._opened.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        while month <= self._clock.now():
            folder = f"invoice_month={month:%Y%m}/{run}"
            bill = self._biller.bill(Interval(start=month, end=_next_month(month)))
            invoice = {
                "invoice_id": bill.invoice_id,
                "invoice_month": f"{month:%Y%m}",
                "currency": bill.currency,
                "total": str(bill.total),
            }
            self._objects[f"{folder}/export-000000000000.json"] = b64decode(bill.content_base64)
            self._objects[f"{folder}/invoice.json"] = json.dumps(invoice).encode()
            month = _next_month(month)
        for stale in list(self._objects)[:-_KEPT]:
            del self._objects[stale]

    def _metadata(self, path: str, request: Request) -> Document:
        content = self._objects[path]
        return {
            "kind": "storage#object",
            "name": path,
            "bucket": self._name,
            "size": str(len(content)),
            "contentType": "application/json",
            "md5Hash": b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode(),
            "updated": timestamp(self._clock.now()),
            "mediaLink": f"{str(request.base_url).rstrip('/')}/storage/v1/b/{self._name}/o/{path}?alt=media",
        }

    def _own_bucket(self, request: Request) -> None:
        if request.path_params["bucket"] != self._name:
            raise GoogleError(404, "The specified bucket does not exist.")


def _next_month(start: datetime) -> datetime:
    return start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
