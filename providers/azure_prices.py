"""Azure's prices: the retail price list by the hour, and SpotResources of Resource Graph for what spot did.

The list mixes systems and kinds of sale under one size: Windows and Cloud Services have their own products, low
priority (Batch) and spot their own meters, reservations their own type.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from typing import TypeVar

from engine.errors import AuthenticationFailed, NotFound, ProviderAnswerInvalid
from engine.model.market import PurchaseOption
from providers.azure_api import AzureApi
from providers.azure_sizes import lost_per_month
from providers.azure_wire import EvictionRates, GraphPage, Price, Prices, SpotHistories
from providers.rest import same_origin

G = TypeVar("G", bound=GraphPage)
PriceTable = dict[tuple[str, PurchaseOption], Decimal]
"""USD per hour by (size, option), for one region."""
SpotHistory = dict[tuple[str, str], tuple[tuple[datetime, Decimal], ...]]
"""(region, size in lower case) -> (from when, price), oldest first."""

_MAX_PAGES = 200
_GRAPH_VERSION = {"api-version": "2022-10-01"}
_GRAPH_ROWS = 1000
"""Of an answer, at most. A query that projects no id gets no token for the rest, and one that is not sorted by a column
of distinct values finds rows twice and others never."""
_HISTORY_QUERY = (
    "SpotResources | where type =~ 'microsoft.compute/skuspotpricehistory/ostype/location'"
    " | where properties.osType =~ 'linux' | where location in~ ({regions})"
    " | project id, skuName = tostring(sku.name), location, spotPrices = properties.spotPrices | order by id asc"
)
_EVICTION_QUERY = (
    "SpotResources | where type =~ 'microsoft.compute/skuspotevictionrate/location' | where location in~ ({regions})"
    " | project id, skuName = tostring(sku.name), location, spotEvictionRate = tostring(properties.evictionRate)"
    " | order by id asc"
)


def hourly_prices(api: AzureApi, region: str, now: datetime, *, size: str | None = None) -> PriceTable:
    """Linux by the hour, above zero, in force; of one size or of all in the region."""
    wanted = f"serviceName eq 'Virtual Machines' and priceType eq 'Consumption' and armRegionName eq '{region}'"
    if size:
        wanted += f" and armSkuName eq '{size}'"
    newest: dict[tuple[str, PurchaseOption], Price] = {}
    for price in _listed(api, wanted):
        option = _option(price)
        if option is None or price.region != region or price.effective > now:
            continue
        known = newest.get((price.size, option))
        if known is None or known.effective < price.effective:
            newest[price.size, option] = price
    return {key: price.retail_price for key, price in newest.items()}


def spot_history(api: AzureApi, subscription: str, regions: Sequence[str]) -> SpotHistory:
    """Up to 90 days; empty where the credentials may not ask Resource Graph."""
    try:
        return {
            (row.region, row.size.lower()): tuple(
                sorted((point.effective, point.price) for point in row.prices if point.price > 0)
            )
            for page in _graph(api, SpotHistories, _HISTORY_QUERY, subscription, regions)
            for row in page.data
        }
    except (AuthenticationFailed, NotFound):
        return {}


def eviction_per_month(api: AzureApi, subscription: str, regions: Sequence[str]) -> dict[tuple[str, str], float]:
    """(region, size in lower case) -> share lost in a month; empty where Resource Graph may not be asked."""
    try:
        known = {
            (row.region, row.size.lower()): lost_per_month(row.band)
            for page in _graph(api, EvictionRates, _EVICTION_QUERY, subscription, regions)
            for row in page.data
        }
    except (AuthenticationFailed, NotFound):
        return {}
    return {key: lost for key, lost in known.items() if lost is not None}


def _listed(api: AzureApi, wanted: str) -> Iterator[Price]:
    page = api.public(Prices, api.prices, {"$filter": wanted})
    for _ in range(_MAX_PAGES):
        yield from page.items
        if not page.next_link:
            return
        if not same_origin(page.next_link, api.prices):
            raise ProviderAnswerInvalid("a page of Azure's retail price list leads elsewhere")
        page = api.public(Prices, page.next_link)
    raise ProviderAnswerInvalid("Azure's retail price list does not stop paging")


def _option(price: Price) -> PurchaseOption | None:
    """What kind of sale a meter is, if it is Linux by the hour in US dollars at all."""
    if price.type != "Consumption" or price.unit != "1 Hour" or price.currency != "USD" or price.tier_minimum != 0:
        return None
    if price.retail_price <= 0 or not price.size:
        return None
    if any(word in price.product_name for word in ("Windows", "Cloud Services", "CloudServices", "Dedicated Host")):
        return None
    if "Low Priority" in price.sku_name or "Low Priority" in price.meter_name:
        return None
    return PurchaseOption.SPOT if "Spot" in price.sku_name else PurchaseOption.ON_DEMAND


def _graph(api: AzureApi, answer: type[G], query: str, subscription: str, regions: Sequence[str]) -> Iterator[G]:
    """The pages of a query to Resource Graph."""
    url, named = f"{api.arm}/providers/Microsoft.ResourceGraph/resources", ", ".join(f"'{name}'" for name in regions)
    options: dict[str, object] = {"resultFormat": "objectArray", "$top": _GRAPH_ROWS}
    for _ in range(_MAX_PAGES):
        body = {"subscriptions": [subscription], "query": query.format(regions=named), "options": options}
        page = api.asked(answer, url, body, _GRAPH_VERSION)
        yield page
        if not page.skip_token:
            if page.truncated == "true":
                raise ProviderAnswerInvalid("Azure's Resource Graph keeps rows back and gives no token to ask for them")
            return
        options = {**options, "$skipToken": page.skip_token}
    raise ProviderAnswerInvalid("Azure's Resource Graph does not stop paging")
