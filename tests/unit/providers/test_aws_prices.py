import json
from decimal import Decimal

import pytest

from engine.errors import ProviderAnswerInvalid
from providers.aws_prices import hourly_prices, product_filters
from tests.unit.providers.aws_script import document


def test_reads_the_hourly_price() -> None:
    assert hourly_prices([document("m5.large", {"USD": "0.0960000000"})]) == {"m5.large": Decimal("0.096")}


@pytest.mark.parametrize(
    "odd",
    [
        document("m5.large"),
        document("m5.large", {"USD": "0.0000000000"}),
        document("m5.large", {"CNY": "0.7"}),
        document("m5.large", {"USD": "9.9"}, unit="Quantity"),
        document(None, {"USD": "0.1"}),
        json.dumps({"product": {"attributes": {"instanceType": "m5.large"}}, "terms": {"Reserved": {}}}),
    ],
    ids=["no price", "zero", "other currency", "not hourly", "no type", "no on-demand term"],
)
def test_leaves_out_what_has_no_usable_price(odd: str) -> None:
    assert hourly_prices([odd, document("c6i.large", {"USD": "0.085"})]) == {"c6i.large": Decimal("0.085")}


def test_of_two_prices_the_dearer_counts() -> None:
    two = [document("m5.large", {"USD": "0.1"}, {"USD": "0.096"}), document("m5.large", {"USD": "0.09"})]
    assert hourly_prices(two) == {"m5.large": Decimal("0.1")}


@pytest.mark.parametrize("rubbish", ["", "<html>", "[]", '{"product": {}}', document("m5.large", {"USD": "NaN"})])
def test_refuses_what_is_no_price_list_entry(rubbish: str) -> None:
    with pytest.raises(ProviderAnswerInvalid):
        hourly_prices([rubbish])


def test_filters_name_region_and_types() -> None:
    filters = product_filters("eu-west-1", ["m5.large", "c6i.large"])
    assert {"Type": "TERM_MATCH", "Field": "regionCode", "Value": "eu-west-1"} in filters
    assert {"Type": "ANY_OF", "Field": "instanceType", "Value": "m5.large,c6i.large"} in filters
