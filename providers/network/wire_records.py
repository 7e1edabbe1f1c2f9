"""What a network tells about what happened, over the Open Capacity API: events, FOCUS rows, invoices."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from pydantic.alias_generators import to_pascal

from providers.network.wire import AmountText, Answer, CurrencyCode, Identifier, Time, WireMoney, WireTerm


class _Event(Answer):
    """``event_id`` grows by the order of events; a stream is resumed behind the last one that was seen."""

    event_id: Annotated[int, Field(ge=1)]
    at: Time


class PriceEvent(_Event):
    """A posted or reserve price changed."""

    type: Literal["price"] = "price"
    offer_id: Identifier
    price: WireMoney


class CapacityEvent(_Event):
    """Another number of units is free."""

    type: Literal["capacity"] = "capacity"
    offer_id: Identifier
    available: Annotated[int, Field(ge=0)]


class ReclaimEvent(_Event):
    """The network takes a unit back at ``reclaim_at``."""

    type: Literal["reclaim"] = "reclaim"
    reservation_id: Identifier
    node: str
    reclaim_at: Time
    reason: str


class GapEvent(_Event):
    """Events up to this id are no longer kept: read the offers, reservations and instances afresh."""

    type: Literal["gap"] = "gap"


WireEvent = Annotated[PriceEvent | CapacityEvent | ReclaimEvent | GapEvent, Field(discriminator="type")]
AnyEvent = PriceEvent | CapacityEvent | ReclaimEvent | GapEvent
EVENT: TypeAdapter[AnyEvent] = TypeAdapter(WireEvent)


class EventList(Answer):
    """In order of ``event_id``."""

    events: Annotated[tuple[WireEvent, ...], Field(strict=False)]


class WireInvoice(Answer):
    """``total`` is what is asked for, in whole minor units; the rows sum to it exactly."""

    invoice_id: Identifier
    issuer: str
    period: WireTerm
    total: WireMoney


class FocusRow(BaseModel):
    """One charge; on the wire the field names are the FOCUS 1.2 columns, as the standard spells them."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", alias_generator=to_pascal, populate_by_name=True, strict=True
    )

    availability_zone: str | None = None
    billed_cost: AmountText
    billing_account_id: str
    billing_account_name: str
    billing_currency: CurrencyCode
    billing_period_end: Time
    billing_period_start: Time
    capacity_reservation_id: str | None = None
    capacity_reservation_status: str | None = None
    charge_category: str
    charge_class: str | None = None
    charge_description: str
    charge_frequency: str
    charge_period_end: Time
    charge_period_start: Time
    consumed_quantity: AmountText | None = None
    consumed_unit: str | None = None
    contracted_cost: AmountText
    contracted_unit_price: AmountText | None = None
    effective_cost: AmountText
    invoice_id: str
    invoice_issuer_name: str
    list_cost: AmountText
    list_unit_price: AmountText | None = None
    pricing_category: str | None = None
    pricing_quantity: AmountText | None = None
    pricing_unit: str | None = None
    provider_name: str
    publisher_name: str
    region_id: str | None = None
    region_name: str | None = None
    resource_id: str | None = None
    resource_name: str | None = None
    resource_type: str | None = None
    service_category: str
    service_name: str
    service_subcategory: str
    sku_id: str | None = None
    sku_price_id: str | None = None
    sub_account_id: str | None = None
    sub_account_name: str | None = None
    tags: dict[str, str] = Field(default_factory=dict)


class WireBill(Answer):
    invoice: WireInvoice
    rows: Annotated[tuple[FocusRow, ...], Field(strict=False)]
