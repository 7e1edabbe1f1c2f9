"""Reads AWS's price list: which document is the plain Linux on-demand price of an instance type, and what it says."""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from engine.errors import ProviderAnswerInvalid

LINUX_ON_DEMAND: Mapping[str, str] = {
    "operatingSystem": "Linux",
    "preInstalledSw": "NA",
    "tenancy": "Shared",
    "capacitystatus": "Used",
}
"""The price list has dozens of products per instance type; these four attributes leave one."""


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, allow_inf_nan=False)


class _Dimension(_Document):
    unit: str
    price_per_unit: dict[str, Decimal]


class _Term(_Document):
    price_dimensions: dict[str, _Dimension]


class _Terms(_Document):
    on_demand: dict[str, _Term] = Field(default_factory=dict, alias="OnDemand")


class _Attributes(_Document):
    instance_type: str | None = None


class _Product(_Document):
    attributes: _Attributes


class _Entry(_Document):
    product: _Product
    terms: _Terms


def product_filters(region: str, instance_types: Iterable[str]) -> list[dict[str, Any]]:
    """GetProducts filters for the on-demand prices of these types in one region."""
    exact = {"regionCode": region, **LINUX_ON_DEMAND}
    return [
        *({"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in exact.items()),
        {"Type": "ANY_OF", "Field": "instanceType", "Value": ",".join(instance_types)},
    ]


def hourly_prices(documents: Iterable[str], *, currency: str = "USD") -> dict[str, Decimal]:
    """instance type -> price per hour.

    Left out: documents without an instance type, without an hourly on-demand price in the currency, and prices of
    zero (reserved capacity is listed at zero). Two different prices for one type: the dearer, to be safe.
    Raises ProviderAnswerInvalid on a document that is no price list entry.
    """
    prices: dict[str, Decimal] = {}
    for document in documents:
        entry = _parsed(document)
        instance_type, price = entry.product.attributes.instance_type, _hourly(entry, currency)
        if instance_type and price is not None:
            prices[instance_type] = max(price, prices.get(instance_type, price))
    return prices


def _hourly(entry: _Entry, currency: str) -> Decimal | None:
    found = (
        dimension.price_per_unit[currency]
        for term in entry.terms.on_demand.values()
        for dimension in term.price_dimensions.values()
        if dimension.unit == "Hrs" and currency in dimension.price_per_unit
    )
    return max((price.normalize() for price in found if price > 0), default=None)


def _parsed(document: str) -> _Entry:
    try:
        return _Entry.model_validate_json(document)
    except ValidationError as problem:
        first = problem.errors(include_url=False, include_input=False)[0]
        raise ProviderAnswerInvalid("aws: a price list entry is not as its API promises", why=first["msg"]) from problem
