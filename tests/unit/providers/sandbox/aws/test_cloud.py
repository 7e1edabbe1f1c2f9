from datetime import timedelta
from decimal import Decimal

import pytest

from engine.clock import ManualClock
from providers.sandbox.aws.cloud import Cloud
from providers.sandbox.aws.front import Front
from providers.sandbox.contract import InstanceState, MarketOption, PriceChange, ReclaimOrder
from tests.unit.providers.sandbox.aws.conftest import START, Ec2Call, ec2_call

SPOT = {"InstanceMarketOptions__MarketType": "spot", "Placement__AvailabilityZone": "us-east-1b"}


def change(option: MarketOption, price: str) -> PriceChange:
    return PriceChange(region="us-east-1", instance_type="m5.large", option=option, price=Decimal(price))


def test_an_instance_is_shown_with_its_tags_and_user_data(cloud: Cloud, launch: Ec2Call, clock: ManualClock) -> None:
    launch(
        UserData="ZWNobyBoaQ==",
        TagSpecification__1__ResourceType="instance",
        TagSpecification__1__Tag__1__Key="shardwright-node",
        TagSpecification__1__Tag__1__Value="n1",
    )
    (shown,) = cloud.instances()
    assert (shown.node, shown.user_data, shown.spot, shown.launched_at) == ("n1", "echo hi", False, START)
    assert shown.state is InstanceState.PENDING
    clock.advance(timedelta(seconds=1))
    assert cloud.instances()[0].state is InstanceState.RUNNING


def test_tags_that_come_later_are_seen(cloud: Cloud, front: Front, launch: Ec2Call) -> None:
    launch()
    instance_id = cloud.instances()[0].instance_id
    tag = {"ResourceId__1": instance_id, "Tag__1__Key": "shardwright-node", "Tag__1__Value": "late"}
    assert front.answer(ec2_call("CreateTags", **tag)).status == 200
    assert cloud.instances()[0].node == "late"


def test_a_reclaim_is_announced_then_carried_out_at_aws_too(
    cloud: Cloud, front: Front, launch: Ec2Call, clock: ManualClock
) -> None:
    launch(**SPOT)
    instance_id = cloud.instances()[0].instance_id
    cloud.reclaim(ReclaimOrder(instance_id=instance_id, notice_seconds=30))
    (notice,) = cloud.notices()
    assert (notice.instance_id, notice.seen_at, notice.at) == (instance_id, START, START + timedelta(seconds=30))
    assert b"<name>running" in front.answer(ec2_call("DescribeInstances")).body
    clock.advance(timedelta(seconds=31))
    assert b"<name>terminated" in front.answer(ec2_call("DescribeInstances")).body
    assert cloud.instances()[0].state is InstanceState.TERMINATED


def test_a_spot_price_over_the_ceiling_gives_two_minutes(cloud: Cloud, launch: Ec2Call, clock: ManualClock) -> None:
    launch(**SPOT, InstanceMarketOptions__SpotOptions__MaxPrice="0.06")
    launch(**SPOT)
    cloud.change_price(change(MarketOption.SPOT, "0.07"))
    (notice,) = cloud.notices()
    assert notice.at - notice.seen_at == timedelta(minutes=2)
    clock.advance(timedelta(seconds=130))
    assert sorted(row.state for row in cloud.instances()) == [InstanceState.RUNNING, InstanceState.TERMINATED]


def test_an_on_demand_instance_outlives_any_price(cloud: Cloud, launch: Ec2Call) -> None:
    launch()
    cloud.change_price(change(MarketOption.ON_DEMAND, "9"))
    assert cloud.notices() == []


def test_a_terminated_instance_is_listed_for_a_minute(
    cloud: Cloud, front: Front, launch: Ec2Call, clock: ManualClock
) -> None:
    launch()
    front.answer(ec2_call("TerminateInstances", InstanceId__1=cloud.instances()[0].instance_id))
    assert cloud.instances()[0].state is InstanceState.TERMINATED
    clock.advance(timedelta(seconds=61))
    assert cloud.instances() == []


@pytest.mark.parametrize("option", [MarketOption.SPOT, MarketOption.AUCTION])
def test_prices_of_what_is_not_sold_are_refused(cloud: Cloud, option: MarketOption) -> None:
    with pytest.raises(KeyError):
        cloud.change_price(PriceChange(region="us-east-1", instance_type="z9.large", option=option, price=Decimal(1)))
