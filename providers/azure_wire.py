"""Azure's answers, as far as the adapter reads them: ARM (compute, billing, cost), Resource Graph, retail prices."""

from decimal import Decimal
from typing import Literal

from pydantic import AwareDatetime, Field

from engine.model.money import Currency
from providers.rest import Wire


class Page(Wire):
    next_link: str | None = Field(alias="nextLink", default=None)


class Capability(Wire):
    name: str
    value: str


class LocationInfo(Wire):
    location: str
    zones: tuple[str, ...] = ()


class RestrictionInfo(Wire):
    zones: tuple[str, ...] = ()


class Restriction(Wire):
    type: str
    restriction_info: RestrictionInfo = Field(alias="restrictionInfo", default=RestrictionInfo())


class Sku(Wire):
    resource_type: str = Field(alias="resourceType")
    name: str = ""
    family: str = ""
    location_info: tuple[LocationInfo, ...] = Field(alias="locationInfo", default=())
    capabilities: tuple[Capability, ...] = ()
    restrictions: tuple[Restriction, ...] = ()


class Skus(Page):
    value: tuple[Sku, ...]


class UsageName(Wire):
    value: str


class Usage(Wire):
    current_value: int = Field(alias="currentValue")
    limit: int
    name: UsageName


class Usages(Page):
    value: tuple[Usage, ...]


class Price(Wire):
    """One meter of the retail price list."""

    currency: str = Field(alias="currencyCode")
    retail_price: Decimal = Field(alias="retailPrice")
    tier_minimum: Decimal = Field(alias="tierMinimumUnits", default=Decimal(0))
    region: str = Field(alias="armRegionName", default="")
    effective: AwareDatetime = Field(alias="effectiveStartDate")
    meter_name: str = Field(alias="meterName", default="")
    product_name: str = Field(alias="productName", default="")
    sku_name: str = Field(alias="skuName", default="")
    unit: str = Field(alias="unitOfMeasure")
    type: str
    size: str = Field(alias="armSkuName", default="")


class Prices(Wire):
    items: tuple[Price, ...] = Field(alias="Items")
    next_link: str | None = Field(alias="NextPageLink", default=None)


class GraphPage(Wire):
    """Of Resource Graph's answers: more rows are behind the token."""

    skip_token: str | None = Field(alias="$skipToken", default=None)
    truncated: Literal["true", "false"] = Field(alias="resultTruncated", default="false")
    """Rows are missing, and there is no token to have them by."""


class SpotPrice(Wire):
    effective: AwareDatetime = Field(alias="effectiveDate")
    price: Decimal = Field(alias="priceUSD")


class SpotHistory(Wire):
    """A row of Resource Graph's SpotResources table, as our query projects it."""

    size: str = Field(alias="skuName")
    region: str = Field(alias="location")
    prices: tuple[SpotPrice, ...] = Field(alias="spotPrices")


class SpotHistories(GraphPage):
    data: tuple[SpotHistory, ...]


class EvictionRate(Wire):
    size: str = Field(alias="skuName")
    region: str = Field(alias="location")
    band: str = Field(alias="spotEvictionRate")


class EvictionRates(GraphPage):
    data: tuple[EvictionRate, ...]


class Status(Wire):
    code: str


class InstanceView(Wire):
    statuses: tuple[Status, ...] = ()


class HardwareProfile(Wire):
    vm_size: str = Field(alias="vmSize")


class VmProperties(Wire):
    vm_id: str = Field(alias="vmId")
    hardware: HardwareProfile = Field(alias="hardwareProfile")
    created: AwareDatetime = Field(alias="timeCreated")


class Vm(Wire):
    id: str
    location: str
    zones: tuple[str, ...] = ()
    tags: dict[str, str] = Field(default_factory=dict)
    properties: VmProperties


class Vms(Page):
    value: tuple[Vm, ...]


class VmStatusProperties(Wire):
    instance_view: InstanceView = Field(alias="instanceView", default=InstanceView())


class VmStatus(Wire):
    id: str
    properties: VmStatusProperties


class VmStatuses(Page):
    value: tuple[VmStatus, ...]


class AccessToken(Wire):
    access_token: str = Field(min_length=1)
    expires_in: int = Field(gt=0)


class Amount(Wire):
    currency: Currency
    value: Decimal


class InvoiceProperties(Wire):
    start: AwareDatetime = Field(alias="invoicePeriodStartDate")
    end: AwareDatetime = Field(alias="invoicePeriodEndDate")
    """The last day, included."""
    issued: AwareDatetime = Field(alias="invoiceDate")
    total: Amount = Field(alias="totalAmount")
    status: str = ""
    kind: str = Field(alias="documentType", default="Invoice")

    @property
    def asks_for_money(self) -> bool:
        """Not one that was voided, nor the notes and receipts that go with one."""
        return self.kind == "Invoice" and self.status.lower() != "void"


class InvoiceDocument(Wire):
    name: str
    properties: InvoiceProperties


class Invoices(Page):
    value: tuple[InvoiceDocument, ...]


class Blob(Wire):
    link: str = Field(alias="blobLink")


class Manifest(Wire):
    data_format: str = Field(alias="dataFormat")
    compressed: bool = Field(alias="compressData", default=False)
    blobs: tuple[Blob, ...]


class Report(Wire):
    status: str
    manifest: Manifest | None = None
