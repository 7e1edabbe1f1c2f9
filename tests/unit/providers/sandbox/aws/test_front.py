import json
from typing import Any

import pytest

from providers.sandbox.aws.front import Front
from tests.unit.providers.sandbox.aws.conftest import ec2_call, json_call


def products(front: Front, **body: Any) -> dict[str, Any]:
    asked = json.dumps({"ServiceCode": "AmazonEC2", **body}).encode()
    answer = front.answer(json_call("pricing", "AWSPriceListService.GetProducts", asked))
    parsed: dict[str, Any] = json.loads(answer.body)
    return parsed


def rule(kind: str, field: str, value: str) -> dict[str, str]:
    return {"Type": kind, "Field": field, "Value": value}


def test_strangers_are_turned_away(front: Front) -> None:
    answer = front.answer(ec2_call("DescribeInstances", key_id="AKIASOMEBODYELSE0000"))
    assert (answer.status, b"AuthFailure" in answer.body) == (401, True)


def test_an_unsigned_request_is_turned_away(front: Front) -> None:
    from providers.sandbox.aws.wire import read_call

    assert front.answer(read_call("GET", "/", "", {}, b"")).status == 403


def test_moto_answers_the_rest(front: Front) -> None:
    answer = front.answer(ec2_call("CreateVpc", CidrBlock="10.1.0.0/16"))
    assert (answer.status, b"10.1.0.0/16" in answer.body) == (200, True)


def test_unreadable_json_is_the_callers_fault(front: Front) -> None:
    assert front.answer(json_call("pricing", "AWSPriceListService.GetProducts", b"{")).status == 400


def test_products_are_filtered(front: Front) -> None:
    filters = [rule("ANY_OF", "instanceType", "m5.large,c6i.large"), rule("TERM_MATCH", "regionCode", "us-east-1")]
    found = [json.loads(text) for text in products(front, Filters=filters)["PriceList"]]
    assert sorted(each["product"]["attributes"]["instanceType"] for each in found) == ["c6i.large", "m5.large"]
    assert products(front, Filters=[rule("TERM_MATCH", "operatingSystem", "Windows")])["PriceList"] == []


def test_products_come_in_pages(front: Front) -> None:
    whole = products(front)["PriceList"]
    first = products(front, MaxResults=10)
    second = products(front, MaxResults=10, NextToken=first["NextToken"])
    assert first["PriceList"] + second["PriceList"] == whole[:20]
    assert "NextToken" not in products(front)


@pytest.mark.parametrize("body", [{"ServiceCode": "AmazonS3"}, {"Filters": [rule("GUESS", "a", "b")]}])
def test_products_that_are_not_here_are_refused(front: Front, body: dict[str, Any]) -> None:
    assert "__type" in products(front, **body)
