"""AwsProvider against the sandbox AWS in its own process."""

import csv
import gzip
import io
from collections.abc import Iterator
from decimal import Decimal

import boto3
import pytest
from botocore.exceptions import ClientError
from pydantic import SecretStr

from engine.clock import wait_until
from engine.errors import NotFound
from engine.model.billing import BillDelivery, BillFormat
from engine.model.market import Offer, PurchaseOption
from providers.aws import AwsProvider
from providers.base import Provider, ProviderSettings
from providers.sandbox.aws import ACCESS_KEY_ID, SECRET_ACCESS_KEY
from tests.contract.provider_contract import (
    SMALL,
    ProviderContract,
    RecordingClock,
    SandboxControl,
    WallClock,
    running_server,
)

ACCOUNT = "210987654321"
NODE_COLUMN = "resourceTags/user:shardwright-node"


class TestAwsProvider(ProviderContract):
    @pytest.fixture(scope="class")
    @classmethod
    def control(cls) -> Iterator[SandboxControl]:
        arguments = ("--account", ACCOUNT, "--regions", "us-east-1,eu-west-1", "--seed", "7", "--meter-speed", "3600")
        with running_server("providers.sandbox.aws", *arguments) as server:
            yield server

    @pytest.fixture
    def settings(self, control: SandboxControl) -> ProviderSettings:
        return ProviderSettings(
            name="aws",
            kind="aws",
            account=ACCOUNT,
            regions=("us-east-1", "eu-west-1"),
            endpoint=control.url,
            credentials={
                "access_key_id": SecretStr(ACCESS_KEY_ID),
                "secret_access_key": SecretStr(SECRET_ACCESS_KEY),
            },
        )

    def scarce(self, offers: list[Offer]) -> Offer:
        return next(offer for offer in offers if offer.option is PurchaseOption.SPOT)

    def launch(self, settings: ProviderSettings, offer: Offer, node: str, token: str) -> str:
        return run_instance(ec2_client(settings, offer.region), offer, node, token)

    def bill_total(self, delivery: BillDelivery) -> Decimal:
        return sum((Decimal(row["lineItem/UnblendedCost"]) for row in report_rows(delivery)), Decimal(0))

    # -- AWS's own ------------------------------------------------------------------------------------------------

    def test_both_options_of_every_type_in_every_zone(self, provider: Provider) -> None:
        found = {(o.zone, o.instance_type, o.option) for o in provider.offers(SMALL)}
        assert ("us-east-1a", "m5.large", PurchaseOption.ON_DEMAND) in found
        assert ("eu-west-1b", "m5.large", PurchaseOption.SPOT) in found
        on_demand = {(zone, kind) for zone, kind, option in found if option is PurchaseOption.ON_DEMAND}
        assert on_demand == {(zone, kind) for zone, kind, option in found if option is PurchaseOption.SPOT}

    def test_spot_prices_have_a_day_of_history(self, provider: Provider) -> None:
        spot = [offer for offer in provider.offers(SMALL) if offer.option is PurchaseOption.SPOT]
        assert all(offer.price_history[-1].price == offer.price for offer in spot)
        assert sum(len(offer.price_history) for offer in spot) > 5 * len(spot)

    def test_a_spot_quote_is_capped_by_the_on_demand_price(self, provider: Provider, clock: RecordingClock) -> None:
        offers = self.quotable(provider)
        spot = self.scarce(offers)
        fixed = next(
            o
            for o in offers
            if (o.zone, o.instance_type, o.option) == (spot.zone, spot.instance_type, PurchaseOption.ON_DEMAND)
        )
        assert self.ask(provider, spot, clock).price_ceiling == fixed.price

    def test_launching_without_capacity_fails_as_at_aws(
        self, provider: Provider, settings: ProviderSettings, control: SandboxControl
    ) -> None:
        offer = self.quotable(provider)[0]
        with control.faulty("no_capacity"), pytest.raises(ClientError, match="InsufficientInstanceCapacity"):
            self.launch(settings, offer, "node-x", "token-x")

    def test_the_same_client_token_is_the_same_instance(
        self, provider: Provider, settings: ProviderSettings, control: SandboxControl
    ) -> None:
        offer = self.quotable(provider)[0]
        first = self.launch(settings, offer, "node-same", "token-same")
        assert self.launch(settings, offer, "node-same", "token-same") == first
        assert len([row for row in control.instances() if row["node"] == "node-same"]) == 1
        with pytest.raises(ClientError, match="IdempotentParameterMismatch"):
            self.launch(settings, offer, "node-other", "token-same")

    def test_user_data_reaches_the_node_decoded(
        self, provider: Provider, settings: ProviderSettings, control: SandboxControl
    ) -> None:
        offer = self.scarce(self.quotable(provider))
        instance_id = self.launch(settings, offer, "node-data", "token-data")
        row = next(row for row in control.instances() if row["instance_id"] == instance_id)
        assert row["user_data"] == "#!/bin/sh\necho node-data\n"
        assert (row["spot"], row["zone"], row["instance_type"]) == (True, offer.zone, offer.instance_type)

    def test_bill_rows_name_the_node_and_price_changes_count(
        self, provider: AwsProvider, settings: ProviderSettings, control: SandboxControl, clock: RecordingClock
    ) -> None:
        offer = self.scarce(self.quotable(provider))
        month = self.ask(provider, offer, clock).term
        self.launch(settings, offer, "node-billed", "token-billed")

        def rates() -> set[str]:
            try:
                bill = provider.bill(month)
            except NotFound:  # nothing has been metered yet
                return set()
            rows = [r for r in report_rows(bill) if r[NODE_COLUMN] == "node-billed"]
            assert all(row["lineItem/UsageType"].endswith(f"SpotUsage:{offer.instance_type}") for row in rows)
            return {row["lineItem/UnblendedRate"] for row in rows}

        assert wait_until(lambda: len(rates()) == 1, WallClock(), timeout_seconds=10)
        control.price(offer.region, offer.instance_type, PurchaseOption.SPOT, Decimal("0.0111"))
        assert wait_until(lambda: len(rates()) == 2, WallClock(), timeout_seconds=10)
        assert "0.0111" in rates()
        assert provider.bill(month).format is BillFormat.AWS_CUR


def ec2_client(settings: ProviderSettings, region: str) -> "boto3.client":
    return boto3.client(
        "ec2",
        region_name=region,
        endpoint_url=settings.endpoint,
        aws_access_key_id=ACCESS_KEY_ID,
        aws_secret_access_key=SECRET_ACCESS_KEY,
    )


def run_instance(ec2: "boto3.client", offer: Offer, node: str, token: str) -> str:
    spot = offer.option is PurchaseOption.SPOT
    market = {"InstanceMarketOptions": {"MarketType": "spot"}} if spot else {}
    tags = [{"Key": "shardwright-node", "Value": node}, {"Key": "shardwright-token", "Value": token}]
    started = ec2.run_instances(
        ImageId="ami-12c6146b",
        InstanceType=offer.instance_type,
        Placement={"AvailabilityZone": offer.zone},
        MinCount=1,
        MaxCount=1,
        ClientToken=token,
        UserData=f"#!/bin/sh\necho {node}\n",
        TagSpecifications=[{"ResourceType": "instance", "Tags": tags}],
        **market,
    )
    return str(started["Instances"][0]["InstanceId"])


def report_rows(delivery: BillDelivery) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(gzip.decompress(delivery.content).decode())))
