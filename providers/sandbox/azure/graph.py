"""Resource Graph of the sandbox's Azure: the SpotResources table, page by page."""

from datetime import timedelta
from random import Random
from typing import Annotated

from pydantic import Field

from engine.clock import Clock
from engine.model.market import PurchaseOption
from providers.sandbox.azure.catalog import SIZES
from providers.sandbox.azure.wire import ArmError, Body, Document, checked, timestamp
from providers.sandbox.prices import PriceBoard

ROWS = 8
"""Of an answer: fewer than the real thousand, so that clients have to turn pages."""
_HISTORY = timedelta(days=90)


class _Options(Body):
    top: Annotated[int, Field(alias="$top", ge=1, le=1000)] = 1000
    skip_token: Annotated[str | None, Field(alias="$skipToken")] = None


class _Request(Body):
    query: str
    options: _Options = _Options()


def resources(body: Document, board: PriceBoard, regions: tuple[str, ...], clock: Clock) -> Document:
    """One page. As in real answers, only a query that projects the id gets a token for the rest, and without an order
    no two pages are cut from the same sequence."""
    request = checked(_Request, body)
    rows, skip = spot_resources(request.query, board, regions, clock), _offset(request.options.skip_token)
    if "order by id" in request.query:
        rows.sort(key=lambda row: str(row["id"]))
    else:
        Random(skip).shuffle(rows)  # noqa: S311 (an order that is none, not a secret)
    end = skip + min(request.options.top, ROWS)
    page = rows[skip:end]
    more, pages = end < len(rows), "project id" in request.query
    counts = {"totalRecords": len(rows), "count": len(page), "facets": []}
    token = {"$skipToken": str(end)} if more and pages else {}
    return {**counts, "resultTruncated": "true" if more and not pages else "false", **token, "data": page}


def _offset(token: str | None) -> int:
    if token is None:
        return 0
    if not token.isdecimal():
        raise ArmError(400, "BadRequest", "The $skipToken is not one that an earlier answer gave.")
    return int(token)


def spot_resources(query: str, board: PriceBoard, regions: tuple[str, ...], clock: Clock) -> list[Document]:
    """Rows of the SpotResources table that a query asks for: by type and, where it names them, by location.

    Resource Graph speaks a whole query language; the sandbox reads which of the two types and which locations.
    """
    wanted = query.lower()
    asked = [region for region in regions if f"'{region}'" in wanted] or list(regions)
    spot_sizes = [(size, region) for size in SIZES.values() if size.spot_capable for region in asked]
    if "skuspotevictionrate" in wanted:
        return [
            {
                "id": f"/providers/Microsoft.Compute/skuSpotEvictionRate/{size.name}/location/{region}",
                "skuName": size.name.lower(),
                "location": region,
                "spotEvictionRate": size.eviction_rate,
            }
            for size, region in spot_sizes
        ]
    if "skuspotpricehistory" not in wanted:
        return []
    rows = []
    for size, region in spot_sizes:
        changes = board.changes(size.key(region, PurchaseOption.SPOT), clock.now() - _HISTORY, clock.now())
        prices = [{"effectiveDate": timestamp(at), "priceUSD": float(price)} for at, price in reversed(changes)]
        resource = f"/providers/Microsoft.Compute/skuSpotPriceHistory/{size.name}/osType/linux/location/{region}"
        sold = {"skuName": size.name.lower(), "osType": "linux", "location": region}
        rows.append({"id": resource, **sold, "spotPrices": prices})
    return rows
