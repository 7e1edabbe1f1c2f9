"""Google Cloud's adapter against the sandbox's Google Cloud: the contract, and what is peculiar to Google."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import NAMESPACE_URL, uuid5

import httpx
import pytest
from pydantic import SecretStr

from engine.clock import wait_until
from engine.errors import AuthenticationFailed, ConfigurationError, InsufficientCapacity
from engine.model.billing import BillDelivery
from engine.model.market import Offer, PurchaseOption
from engine.model.value import Interval
from providers.base import Provider, ProviderSettings, SupportsBills, SupportsInventory
from providers.gcp import GcpProvider
from tests.contract.provider_contract import (
    SMALL,
    ProviderContract,
    RecordingClock,
    SandboxControl,
    WallClock,
    running_server,
)

PROJECT = "shardwright-sandbox"
ARGUMENTS = ("--account", PROJECT, "--regions", "us-central1,europe-west1", "--seed", "7", "--meter-speed", "36000")


def insert(url: str, bearer: str, zone: str, body: dict[str, object], request_id: str) -> httpx.Response:
    return httpx.post(
        f"{url}/compute/v1/projects/{PROJECT}/zones/{zone}/instances",
        params={"requestId": request_id},
        json=body,
        headers={"Authorization": f"Bearer {bearer}"},
    )


class TestGcpProvider(ProviderContract):
    @pytest.fixture(scope="class")
    def control(self) -> Iterator[SandboxControl]:
        with running_server("providers.sandbox.gcp", *ARGUMENTS) as server:
            yield server

    @pytest.fixture
    def settings(self, control: SandboxControl) -> ProviderSettings:
        return ProviderSettings(
            name="gcp-test",
            kind="gcp",
            account=PROJECT,
            regions=("us-central1", "europe-west1"),
            endpoint=control.url,
            credentials={
                "client_id": SecretStr("shardwright"),
                "client_secret": SecretStr("sandbox"),
                "refresh_token": SecretStr("any"),
            },
        )

    def launch(self, settings: ProviderSettings, offer: Offer, node: str, token: str) -> str:
        assert settings.endpoint is not None
        spot = offer.option is PurchaseOption.SPOT
        answer = insert(
            settings.endpoint,
            "sandbox",
            offer.zone,
            {
                "name": node,
                "machineType": f"zones/{offer.zone}/machineTypes/{offer.instance_type}",
                "disks": [{"boot": True, "initializeParams": {"sourceImage": "global/images/family/debian-12"}}],
                "networkInterfaces": [{"network": "global/networks/default"}],
                "labels": {"shardwright-node": node, "shardwright-workload": "shop"},
                "metadata": {
                    "items": [
                        {"key": "shardwright-node", "value": node},
                        {"key": "shardwright-token", "value": token},
                        {"key": "user-data", "value": "#!/bin/sh\necho hello"},
                    ]
                },
                "scheduling": {"provisioningModel": "SPOT" if spot else "STANDARD"},
            },
            str(uuid5(NAMESPACE_URL, token)),
        )
        assert answer.status_code == 200, answer.text
        target: str = answer.json()["targetId"]
        return target

    def bill_total(self, delivery: BillDelivery) -> Decimal:
        rows = [json.loads(line, parse_float=Decimal) for line in delivery.content.splitlines()]
        credits = [credit["amount"] for row in rows for credit in row["credits"]]
        return sum((Decimal(amount) for amount in [*(row["cost"] for row in rows), *credits]), Decimal(0))

    # -- peculiar to Google ---------------------------------------------------------------------------------------

    def test_a_machine_type_costs_its_cores_and_its_memory(self, provider: Provider) -> None:
        prices = {
            (offer.region, offer.instance_type, offer.option): offer.price.amount for offer in provider.offers(SMALL)
        }
        listed = prices["us-central1", "e2-standard-4", PurchaseOption.ON_DEMAND]
        assert listed == 4 * Decimal("0.02181159") + 16 * Decimal("0.00292353")

    def test_spot_has_a_history_below_the_list_price(self, provider: Provider) -> None:
        for offer in provider.offers(SMALL.model_copy(update={"options": (PurchaseOption.SPOT,)})):
            assert len({point.price.amount for point in offer.price_history}) > 5
            assert offer.price_history[-1].price == offer.price

    def test_shared_core_types_are_left_out(self, provider: Provider) -> None:
        assert "e2-medium" not in {offer.instance_type for offer in provider.offers(SMALL)}

    def test_a_service_account_key_is_exchanged(
        self, control: SandboxControl, settings: ProviderSettings, clock: RecordingClock
    ) -> None:
        key = httpx.get(f"{control.url}/_sandbox/service-account").text
        keyed = settings.model_copy(update={"credentials": {"service_account_json": SecretStr(key)}})
        assert list(GcpProvider(keyed, clock=clock).offers(SMALL))
        forged = json.dumps({**json.loads(key), "client_email": "somebody@else.iam.gserviceaccount.com"})
        wrong = settings.model_copy(update={"credentials": {"service_account_json": SecretStr(forged)}})
        with pytest.raises(AuthenticationFailed):
            list(GcpProvider(wrong, clock=clock).offers(SMALL))

    def test_tokens_in_the_clear_are_refused(self, settings: ProviderSettings, clock: RecordingClock) -> None:
        with pytest.raises(ConfigurationError):
            GcpProvider(settings.model_copy(update={"endpoint": "http://cloud.example.com"}), clock=clock)

    def test_the_quota_bounds_a_quote(self, provider: Provider, clock: RecordingClock) -> None:
        offer = next(found for found in self.quotable(provider) if found.option is PurchaseOption.ON_DEMAND)
        with pytest.raises(InsufficientCapacity, match="quota"):
            self.ask(provider, offer, clock, quantity=1000)

    def test_the_same_request_id_inserts_once(
        self, provider: Provider, settings: ProviderSettings, control: SandboxControl
    ) -> None:
        assert isinstance(provider, SupportsInventory)
        offer = self.quotable(provider)[0]
        first = self.launch(settings, offer, "node-once", "shard:x:node-once:1")
        assert self.launch(settings, offer, "node-once", "shard:x:node-once:1") == first
        mine = [row for row in control.instances() if row["node"] == "node-once"]
        assert [row["user_data"] for row in mine] == ["#!/bin/sh\necho hello"]
        provider.terminate(first)

    def test_a_wish_that_finds_no_capacity_ends_in_an_operation_error(
        self, control: SandboxControl, settings: ProviderSettings, provider: Provider
    ) -> None:
        offer = self.quotable(provider)[0]
        with control.faulty("no_capacity"):
            body = {"name": "full", "machineType": offer.instance_type, "disks": [{"boot": True}]}
            answer = insert(control.url, "sandbox", offer.zone, body, "6f1f0b83-5a1f-4c46-9e7e-000000000001").json()
        link = answer["selfLink"]

        def operation() -> dict[str, object]:
            found: dict[str, object] = httpx.get(link, headers={"Authorization": "Bearer sandbox"}).json()
            return found

        assert wait_until(lambda: operation()["status"] == "DONE", WallClock(), timeout_seconds=5)
        assert "ZONE_RESOURCE_POOL_EXHAUSTED" in json.dumps(operation()["error"])

    def test_bill_rows_carry_labels(self, provider: Provider, settings: ProviderSettings) -> None:
        assert isinstance(provider, SupportsBills)
        self.launch(settings, self.quotable(provider)[0], "node-billed", "shard:x:node-billed:1")
        now = datetime.now(UTC)

        def rows() -> list[dict[str, object]]:
            assert isinstance(provider, SupportsBills)
            delivery = provider.bill(Interval(start=now, end=now + timedelta(days=1)))
            return [json.loads(line) for line in delivery.content.splitlines()]

        mine = {"key": "shardwright-node", "value": "node-billed"}
        assert wait_until(
            lambda: any(mine in row["labels"] for row in rows()),
            WallClock(),
            timeout_seconds=5,  # type: ignore[operator]
        )
