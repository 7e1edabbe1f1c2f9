"""Pulumi property values to and from plain Python."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, TypeAlias

from pulumi.provider.experimental.property_value import PropertyValue

UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
"""What stands on the wire for a value that is not known before the update runs."""

Plain: TypeAlias = Any
"""None, bool, float, str, and lists and string-keyed dicts of these; numbers are floats, as on the wire."""
Properties: TypeAlias = Mapping[str, Plain]


def plain(value: PropertyValue) -> Plain:
    """Without secrecy and dependencies; assets are not used by these plugins and refused."""
    inner = value.value
    if inner is None or isinstance(inner, bool | float | str):
        return inner
    if isinstance(inner, Mapping):
        return {key: plain(item) for key, item in inner.items()}
    if isinstance(inner, Sequence):
        return [plain(item) for item in inner if isinstance(item, PropertyValue)]
    raise TypeError(f"a {type(inner).__name__} is not taken as a property")


def plain_map(values: Mapping[str, PropertyValue]) -> dict[str, Plain]:
    return {key: plain(value) for key, value in values.items()}


def wrap(value: Plain) -> PropertyValue:
    """The inverse of ``plain``; integers and decimals travel as numbers."""
    if value is None or isinstance(value, bool | float | str):
        return PropertyValue(value)
    if isinstance(value, int | Decimal):
        return PropertyValue(float(value))
    if isinstance(value, Mapping):
        return PropertyValue({str(key): wrap(item) for key, item in value.items()})
    if isinstance(value, Sequence):
        return PropertyValue([wrap(item) for item in value])
    raise TypeError(f"a {type(value).__name__} cannot be a property")


def wrap_map(values: Properties) -> dict[str, PropertyValue]:
    return {key: wrap(value) for key, value in values.items()}


def known(value: Plain) -> bool:
    """Whether no part of it waits for the update."""
    if isinstance(value, Mapping):
        return all(known(item) for item in value.values())
    if isinstance(value, list):
        return all(known(item) for item in value)
    return bool(value != UNKNOWN)
