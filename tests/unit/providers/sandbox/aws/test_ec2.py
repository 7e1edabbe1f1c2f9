from datetime import datetime, timedelta
from xml.etree import ElementTree

import pytest

from engine.clock import ManualClock
from providers.sandbox.aws.cloud import Cloud
from providers.sandbox.aws.front import Front
from providers.sandbox.aws.wire import EC2_NAMESPACE, Answer
from providers.sandbox.contract import Fault, FaultMode
from tests.unit.providers.sandbox.aws.conftest import START, Ec2Call, ec2_call


def texts(answer: Answer, name: str) -> list[str]:
    return [found.text or "" for found in ElementTree.fromstring(answer.body).iter(f"{{{EC2_NAMESPACE}}}{name}")]


def test_spot_history_pages_tell_every_change_once(front: Front) -> None:
    wanted = {"InstanceType__1": "m5.large", "AvailabilityZone": "us-east-1a"}
    whole = front.answer(ec2_call("DescribeSpotPriceHistory", **wanted))
    assert len(texts(whole, "item")) > 8
    seen: list[str] = []
    token = ""
    while True:
        more = {"NextToken": token} if token else {}
        page = front.answer(ec2_call("DescribeSpotPriceHistory", **wanted, **more, MaxResults="5"))
        seen += texts(page, "timestamp")
        (token,) = texts(page, "nextToken")
        if not token:
            break
    assert seen == texts(whole, "timestamp") == sorted(seen, reverse=True)


def test_pages_do_not_shift_while_prices_move(front: Front, clock: ManualClock) -> None:
    wanted = {"InstanceType__1": "m5.large", "AvailabilityZone": "us-east-1a", "MaxResults": "3"}
    first = front.answer(ec2_call("DescribeSpotPriceHistory", **wanted))
    (token,) = texts(first, "nextToken")
    before = texts(front.answer(ec2_call("DescribeSpotPriceHistory", **wanted, NextToken=token)), "timestamp")
    clock.advance(timedelta(days=1))
    assert texts(front.answer(ec2_call("DescribeSpotPriceHistory", **wanted, NextToken=token)), "timestamp") == before


def test_the_price_in_force_at_the_start_is_included(front: Front) -> None:
    wanted = {"InstanceType__1": "m5.large", "AvailabilityZone": "us-east-1a", "StartTime": START.isoformat()}
    (at,) = texts(front.answer(ec2_call("DescribeSpotPriceHistory", **wanted)), "timestamp")
    assert datetime.fromisoformat(at) <= START


def test_the_same_seed_gives_the_same_prices(front: Front, cloud: Cloud, clock: ManualClock) -> None:
    from decimal import Decimal

    again = Cloud(account=cloud.account, regions=cloud.regions, seed=7, meter_speed=Decimal(1), clock=clock)
    other = Cloud(account=cloud.account, regions=cloud.regions, seed=8, meter_speed=Decimal(1), clock=clock)
    key = ("us-east-1", "us-east-1a/m5.large", "spot")
    prices = [each.market.board.changes(key, START - timedelta(days=1), START) for each in (cloud, again, other)]
    assert prices[0] == prices[1] != prices[2]


@pytest.mark.parametrize(
    ("form", "code"),
    [
        ({"InstanceType": "z9.large"}, "InvalidParameterValue"),
        ({"InstanceType": ""}, "MissingParameter"),
        ({"Placement__AvailabilityZone": "us-east-1e"}, "Unsupported"),
        ({"InstanceMarketOptions__MarketType": "spot", "InstanceMarketOptions__SpotOptions__MaxPrice": "0.0001"},
         "SpotMaxPriceTooLow"),
        ({"InstanceMarketOptions__MarketType": "spot", "InstanceMarketOptions__SpotOptions__MaxPrice": "cheap"},
         "InvalidParameterValue"),
    ],
)  # fmt: skip
def test_a_launch_that_aws_would_refuse_is_refused(
    cloud: Cloud, launch: Ec2Call, form: dict[str, str], code: str
) -> None:
    answer = launch(**form)
    assert answer.status == 400
    assert f"<Code>{code}</Code>".encode() in answer.body
    assert cloud.instances() == []


def test_no_capacity_is_aws_error_and_the_lowest_score(cloud: Cloud, front: Front, launch: Ec2Call) -> None:
    cloud.set_fault(Fault(mode=FaultMode.NO_CAPACITY, seconds=60))
    assert b"InsufficientInstanceCapacity" in launch().body
    asked = {"InstanceType__1": "m5.large", "InstanceType__2": "m6i.large", "InstanceType__3": "c6i.large"}
    scores = front.answer(ec2_call("GetSpotPlacementScores", **asked, TargetCapacity="1", RegionName__1="us-east-1"))
    assert texts(scores, "score") == ["1"]


def test_few_types_score_low(front: Front) -> None:
    asked = {"TargetCapacity": "1", "SingleAvailabilityZone": "true", "InstanceType__1": "m5.large"}
    assert set(texts(front.answer(ec2_call("GetSpotPlacementScores", **asked)), "score")) == {"3"}


def test_one_client_token_one_instance(cloud: Cloud, launch: Ec2Call) -> None:
    assert launch(ClientToken="t").body == launch(ClientToken="t").body
    assert len(cloud.instances()) == 1
    assert b"IdempotentParameterMismatch" in launch(ClientToken="t", InstanceType="m6i.large").body
    launch(ClientToken="u")
    assert len(cloud.instances()) == 2


@pytest.mark.parametrize("action", ["StopInstances", "CreateFleet", "RequestSpotInstances"])
def test_what_the_meter_cannot_follow_is_refused(front: Front, action: str) -> None:
    assert b"UnsupportedOperation" in front.answer(ec2_call(action)).body


def test_a_region_that_is_not_served_is_refused(front: Front) -> None:
    assert front.answer(ec2_call("DescribeInstances", region="ap-south-1")).status == 401
