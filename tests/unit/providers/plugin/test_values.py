from decimal import Decimal

import pytest
from pulumi.provider.experimental.property_value import PropertyValue

from providers.plugin.values import UNKNOWN, known, plain, plain_map, wrap, wrap_map

NESTED = {"text": "a", "flag": True, "number": 1.5, "none": None, "list": ["x", {"deep": False}]}


def test_there_and_back() -> None:
    assert plain_map(wrap_map(NESTED)) == NESTED


def test_whole_numbers_and_decimals_travel_as_numbers() -> None:
    assert plain(wrap({"port": 22, "price": Decimal("0.5")})) == {"port": 22.0, "price": 0.5}


def test_secrecy_is_taken_off() -> None:
    assert plain(PropertyValue("s", is_secret=True)) == "s"


def test_what_cannot_travel_is_refused() -> None:
    with pytest.raises(TypeError, match="object"):
        wrap(object())


def test_unknown_is_seen_at_any_depth() -> None:
    assert known(NESTED)
    assert not known({"list": [{"deep": UNKNOWN}]})
