"""Azure's adapter against the sandbox's Azure, over TLS with its own authority: the contract, and Azure's ways."""

import csv
import io
import ssl
import tempfile
from base64 import b64encode
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from pydantic import SecretStr

from engine.clock import wait_until
from engine.errors import InsufficientCapacity, ProviderUnavailable
from engine.model.billing import BillDelivery
from engine.model.market import Offer, PurchaseOption
from engine.model.money import usd
from providers.azure import AzureProvider
from providers.base import Provider, ProviderSettings, SupportsInventory
from providers.sandbox.azure.graph import ROWS
from tests.contract.provider_contract import (
    SMALL,
    ProviderContract,
    RecordingClock,
    SandboxControl,
    WallClock,
    running_server,
)

SUBSCRIPTION = "00000000-0000-4000-8000-000000000001"
ARGUMENTS = ("--account", SUBSCRIPTION, "--regions", "eastus,westeurope", "--seed", "7", "--meter-speed", "36000")
VERSION = {"api-version": "2025-04-01"}


@pytest.fixture(scope="class")
def certificates() -> Iterator[Path]:
    """A folder with ca.pem, and cert.pem and key.pem for 127.0.0.1."""
    with tempfile.TemporaryDirectory() as folder:
        where, authority = Path(folder), trustme.CA()
        leaf = authority.issue_cert("127.0.0.1")
        authority.cert_pem.write_to_path(where / "ca.pem")
        leaf.private_key_pem.write_to_path(where / "key.pem")
        (where / "cert.pem").write_bytes(b"".join(part.bytes() for part in leaf.cert_chain_pems))
        yield where


class Arm:
    """A plain ARM client for what the stack programs do: group, network, interface, machine."""

    def __init__(self, url: str, ca_file: str) -> None:
        self._http = httpx.Client(base_url=url, verify=ssl.create_default_context(cafile=ca_file), params=VERSION)
        form = {"grant_type": "client_credentials", "client_id": "x", "client_secret": "sandbox", "scope": "y/.default"}
        token = self._http.post("/tenant/oauth2/v2.0/token", data=form).raise_for_status().json()["access_token"]
        self._http.headers["Authorization"] = f"Bearer {token}"

    def close(self) -> None:
        self._http.close()

    def put(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = self._http.put(path, json=body)
        assert answer.status_code in (200, 201), answer.text
        document: dict[str, Any] = answer.json()
        return document

    def get(self, path: str, **params: str) -> dict[str, Any]:
        document: dict[str, Any] = self._http.get(path, params={**VERSION, **params}).raise_for_status().json()
        return document

    def vm(self, offer: Offer, node: str, tags: dict[str, str], **properties: object) -> dict[str, Any]:
        location = offer.region
        group = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/test-{location}"
        network = f"{group}/providers/Microsoft.Network"
        subnet = f"{network}/virtualNetworks/net/subnets/nodes"
        interface = f"{network}/networkInterfaces/{node}"
        self.put(group, {"location": location})
        spaces = {"addressSpace": {"addressPrefixes": ["10.9.0.0/16"]}}
        self.put(f"{network}/virtualNetworks/net", {"location": location, "properties": spaces})
        self.put(subnet, {"properties": {"addressPrefix": "10.9.1.0/24"}})
        configurations = [{"name": "primary", "properties": {"subnet": {"id": subnet}}}]
        self.put(interface, {"location": location, "properties": {"ipConfigurations": configurations}})
        user_data = b64encode(b"#!/bin/sh\necho hello").decode()
        body = {
            "location": location,
            "zones": [offer.zone],
            "tags": tags,
            "properties": {
                "hardwareProfile": {"vmSize": offer.instance_type},
                "storageProfile": {"imageReference": {"publisher": "Debian", "offer": "debian-12", "sku": "12"}},
                "osProfile": {"computerName": node, "adminUsername": "shard", "customData": user_data},
                "networkProfile": {"networkInterfaces": [{"id": interface}]},
                **properties,
            },
        }
        return self.put(f"{group}/providers/Microsoft.Compute/virtualMachines/{node}", body)


class TestAzureProvider(ProviderContract):
    @pytest.fixture(scope="class")
    def control(self, certificates: Path) -> Iterator[SandboxControl]:
        tls = ("--tls-cert", str(certificates / "cert.pem"), "--tls-key", str(certificates / "key.pem"))
        ca_file = str(certificates / "ca.pem")
        with running_server("providers.sandbox.azure", *ARGUMENTS, *tls, scheme="https", ca_file=ca_file) as server:
            yield server

    @pytest.fixture
    def settings(self, control: SandboxControl, certificates: Path) -> ProviderSettings:
        return ProviderSettings(
            name="azure-test",
            kind="azure",
            account=SUBSCRIPTION,
            regions=("eastus", "westeurope"),
            endpoint=control.url,
            ca_file=str(certificates / "ca.pem"),
            credentials={
                "tenant_id": SecretStr("tenant"),
                "client_id": SecretStr("shardwright"),
                "client_secret": SecretStr("sandbox"),
            },
        )

    @pytest.fixture
    def arm(self, control: SandboxControl, certificates: Path) -> Iterator[Arm]:
        client = Arm(control.url, str(certificates / "ca.pem"))
        yield client
        client.close()

    def launch(self, settings: ProviderSettings, offer: Offer, node: str, token: str) -> str:
        assert settings.endpoint is not None
        assert settings.ca_file is not None
        client = Arm(settings.endpoint, settings.ca_file)
        tags = {"shardwright-node": node, "shardwright-token": token, "shardwright-workload": "shop"}
        spot = {"priority": "Spot", "billingProfile": {"maxPrice": -1}}
        document = client.vm(offer, node, tags, **(spot if offer.option is PurchaseOption.SPOT else {}))
        client.close()
        vm_id: str = document["properties"]["vmId"]
        return vm_id

    def bill_total(self, delivery: BillDelivery) -> Decimal:
        rows = csv.DictReader(io.StringIO(delivery.content.decode()))
        return sum((Decimal(row["CostInBillingCurrency"]) for row in rows), Decimal(0))

    # -- peculiar to Azure ----------------------------------------------------------------------------------------

    def test_the_authority_must_be_known(self, settings: ProviderSettings, clock: RecordingClock) -> None:
        strangers = settings.model_copy(update={"ca_file": None})
        with pytest.raises(ProviderUnavailable, match="certificate"):
            list(AzureProvider(strangers, clock=clock).offers(SMALL))

    def test_linux_prices_are_told_from_the_rest(self, provider: Provider) -> None:
        listed = {(o.region, o.instance_type, o.option): o.price for o in provider.offers(SMALL)}
        assert listed["eastus", "Standard_D2s_v5", PurchaseOption.ON_DEMAND] == usd("0.096")
        assert listed["westeurope", "Standard_E4s_v5", PurchaseOption.ON_DEMAND] == usd("0.304")
        assert ("eastus", "Standard_B2s_v2", PurchaseOption.SPOT) not in listed

    def test_zones_closed_to_the_subscription_are_left_out(self, provider: Provider) -> None:
        zones = {o.zone for o in provider.offers(SMALL) if (o.region, o.instance_type) == ("eastus", "Standard_E4s_v5")}
        assert zones == {"1", "2"}

    def test_spot_has_a_history_and_an_eviction_rate(self, provider: Provider) -> None:
        """All of them, which are on several pages of Resource Graph."""
        offers = list(provider.offers(SMALL.model_copy(update={"options": (PurchaseOption.SPOT,)})))
        assert len({(offer.region, offer.instance_type) for offer in offers}) > 2 * ROWS
        for offer in offers:
            assert offer.price_history
            assert offer.price_history[-1].price == offer.price
            assert offer.reliability.interruption_per_month is not None

    def test_the_quota_bounds_a_quote(self, provider: Provider, clock: RecordingClock) -> None:
        with pytest.raises(InsufficientCapacity, match="quota"):
            self.ask(provider, self.quotable(provider)[0], clock, quantity=1000)

    def test_user_data_boots_the_machine_and_is_never_shown(
        self, provider: Provider, control: SandboxControl, arm: Arm
    ) -> None:
        offer = next(found for found in self.quotable(provider) if found.option is PurchaseOption.ON_DEMAND)
        document = arm.vm(offer, "node-data", {"shardwright-node": "node-data"}, userData=b64encode(b"more").decode())
        assert "customData" not in document["properties"]["osProfile"]
        assert "userData" not in arm.get(document["id"].upper())["properties"]
        assert arm.get(document["id"], **{"$expand": "userData"})["properties"]["userData"] == "bW9yZQ=="
        mine = next(row for row in control.instances() if row["node"] == "node-data")
        assert (mine["user_data"], mine["zone"]) == ("#!/bin/sh\necho hello", offer.zone)
        assert mine["private_ip"].startswith("10.9.1.")

    def test_the_same_put_creates_once(self, provider: Provider, control: SandboxControl, arm: Arm) -> None:
        offer = self.quotable(provider)[0]
        first = arm.vm(offer, "node-once", {"shardwright-node": "node-once"})
        second = arm.vm(offer, "node-once", {"shardwright-node": "node-once"})
        assert first["properties"]["vmId"] == second["properties"]["vmId"]
        assert len([row for row in control.instances() if row["node"] == "node-once"]) == 1

    def test_a_spot_machine_is_evicted_when_the_market_passes_its_maximum(
        self, provider: Provider, control: SandboxControl, arm: Arm
    ) -> None:
        assert isinstance(provider, SupportsInventory)
        offer = next(found for found in self.quotable(provider) if found.option is PurchaseOption.SPOT)
        ceiling = {"maxPrice": float(offer.price.amount)}
        arm.vm(offer, "node-bid", {"shardwright-node": "node-bid"}, priority="Spot", billingProfile=ceiling)
        control.price(offer.region, offer.instance_type, offer.option, offer.price.amount * 2)
        assert wait_until(
            lambda: "node-bid" in {notice["node"] for notice in control.notices()}, WallClock(), timeout_seconds=5
        )
        control.price(offer.region, offer.instance_type, offer.option, offer.price.amount)

    def test_a_resource_id_terminates_too(self, provider: Provider, arm: Arm) -> None:
        assert isinstance(provider, SupportsInventory)
        document = arm.vm(self.quotable(provider)[0], "node-gone", {"shardwright-node": "node-gone"})
        provider.terminate(document["id"])
        assert document["properties"]["vmId"] not in {record.instance_id for record in provider.instances()}
        provider.terminate(document["id"])
