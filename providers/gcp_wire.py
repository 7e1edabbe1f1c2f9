"""Google Cloud's answers, as far as the adapter reads them. Compute Engine v1, Cloud Billing v1, Cloud Storage v1."""

from decimal import Decimal

from pydantic import AwareDatetime, Field

from engine.model.money import Currency
from providers.rest import Wire


class Page(Wire):
    next_page_token: str = Field(alias="nextPageToken", default="")


class MachineType(Wire):
    name: str
    guest_cpus: int = Field(alias="guestCpus", gt=0)
    memory_mb: int = Field(alias="memoryMb", gt=0)
    is_shared_cpu: bool = Field(alias="isSharedCpu", default=False)


class MachineTypes(Page):
    items: tuple[MachineType, ...] = ()


class Quota(Wire):
    metric: str
    limit: float
    usage: float


class Region(Wire):
    name: str
    zones: tuple[str, ...]
    """Full links."""
    quotas: tuple[Quota, ...] = ()


class Category(Wire):
    resource_family: str = Field(alias="resourceFamily", default="")
    usage_type: str = Field(alias="usageType", default="")


class UnitPrice(Wire):
    currency_code: str = Field(alias="currencyCode")
    units: str = "0"
    nanos: int = 0

    @property
    def amount(self) -> Decimal:
        return Decimal(self.units) + Decimal(self.nanos).scaleb(-9)


class Rate(Wire):
    unit_price: UnitPrice = Field(alias="unitPrice")


class PricingExpression(Wire):
    usage_unit: str = Field(alias="usageUnit")
    tiered_rates: tuple[Rate, ...] = Field(alias="tieredRates", default=())


class PricingInfo(Wire):
    effective_time: AwareDatetime = Field(alias="effectiveTime")
    pricing_expression: PricingExpression = Field(alias="pricingExpression")


class Sku(Wire):
    sku_id: str = Field(alias="skuId")
    description: str
    category: Category
    service_regions: tuple[str, ...] = Field(alias="serviceRegions", default=())
    pricing_info: tuple[PricingInfo, ...] = Field(alias="pricingInfo", default=())


class Skus(Page):
    skus: tuple[Sku, ...] = ()


class MetadataItem(Wire):
    key: str
    value: str = ""


class Metadata(Wire):
    items: tuple[MetadataItem, ...] = ()


class Instance(Wire):
    id: str
    name: str
    zone: str
    """A full link."""
    machine_type: str = Field(alias="machineType")
    """A full link."""
    status: str
    creation_timestamp: AwareDatetime = Field(alias="creationTimestamp")
    labels: dict[str, str] = Field(default_factory=dict)
    metadata: Metadata = Metadata()


class ZoneInstances(Wire):
    instances: tuple[Instance, ...] = ()


class AggregatedInstances(Page):
    items: dict[str, ZoneInstances] = Field(default_factory=dict)


class AccessToken(Wire):
    access_token: str = Field(min_length=1)
    expires_in: int = Field(gt=0)


class StorageObject(Wire):
    name: str


class StorageObjects(Page):
    items: tuple[StorageObject, ...] = ()


class InvoiceDocument(Wire):
    """The invoice's figures beside the export, written by the same scheduled query or by whoever files the invoice."""

    invoice_id: str = Field(max_length=128)
    invoice_month: str
    currency: Currency
    total: Decimal
