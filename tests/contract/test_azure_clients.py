"""The sandbox's Azure as Microsoft's own client libraries see it: over TLS, with an authority of its own."""

import ssl
import time
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from tests.contract.provider_contract import SandboxControl, running_server

compute = pytest.importorskip("azure.mgmt.compute")
network = pytest.importorskip("azure.mgmt.network")
monitor = pytest.importorskip("azure.mgmt.monitor")

from azure.core.credentials import AccessToken  # noqa: E402
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceNotFoundError  # noqa: E402

SUBSCRIPTION, PLACE = "00000000-0000-4000-8000-000000000001", "westeurope"


@pytest.fixture(scope="module")
def ca_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tls") / "ca.pem"


@pytest.fixture(scope="module")
def control(ca_file: Path) -> Iterator[SandboxControl]:
    authority = trustme.CA()
    leaf = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(ca_file)
    leaf.private_key_and_cert_chain_pem.write_to_path(ca_file.with_name("both.pem"))
    both = str(ca_file.with_name("both.pem"))
    tls = ("--tls-cert", both, "--tls-key", both)
    with running_server("providers.sandbox.azure", *tls, scheme="https", ca_file=str(ca_file)) as server:
        yield server


class Credential:
    """What azure-core asks for; the token comes from the sandbox's Entra."""

    def __init__(self, url: str, ca_file: Path, secret: str) -> None:
        form = {"grant_type": "client_credentials", "client_id": "app", "scope": "x/.default", "client_secret": secret}
        answer = httpx.post(f"{url}/tenant/oauth2/v2.0/token", data=form, verify=_context(ca_file))
        self._token = answer.json().get("access_token", "nonsense")

    def get_token(self, *scopes: str, **kwargs: object) -> AccessToken:
        return AccessToken(self._token, int(time.time()) + 3600)


def _context(ca_file: Path) -> Any:
    return ssl.create_default_context(cafile=str(ca_file))


def client(kind: type, control: SandboxControl, ca_file: Path, secret: str = "sandbox") -> Any:
    credential = Credential(control.url, ca_file, secret)
    return kind(
        credential,
        SUBSCRIPTION,
        base_url=control.url,
        credential_scopes=["https://management.azure.com/.default"],
        connection_verify=str(ca_file),
        polling_interval=0,
    )


@pytest.fixture
def machines(control: SandboxControl, ca_file: Path) -> Any:
    return client(compute.ComputeManagementClient, control, ca_file)


@pytest.fixture
def networks(control: SandboxControl, ca_file: Path) -> Any:
    return client(network.NetworkManagementClient, control, ca_file)


@pytest.fixture
def group(control: SandboxControl, ca_file: Path, request: pytest.FixtureRequest) -> str:
    """A resource group of the test's own."""
    name = request.node.name.replace("_", "-")
    token = Credential(control.url, ca_file, "sandbox").get_token().token
    path = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{name}?api-version=2025-04-01"
    headers = {"Authorization": f"Bearer {token}"}
    answer = httpx.put(control.url + path, json={"location": PLACE}, headers=headers, verify=_context(ca_file))
    assert answer.status_code in (200, 201)
    return name


def an_interface(networks: Any, group: str, name: str) -> str:
    spaces = {"addressSpace": {"addressPrefixes": ["10.42.0.0/16"]}}
    subnet = {"name": "nodes", "properties": {"addressPrefix": "10.42.1.0/24"}}
    body = {"location": PLACE, "properties": {**spaces, "subnets": [subnet]}}
    networks.virtual_networks.begin_create_or_update(group, "net", body).result()
    place = networks.subnets.get(group, "net", "nodes").id
    addresses = [{"name": "ip", "properties": {"subnet": {"id": place}}}]
    body = {"location": PLACE, "properties": {"ipConfigurations": addresses}}
    made = networks.network_interfaces.begin_create_or_update(group, name, body).result()
    assert made.ip_configurations[0].private_ip_address.startswith("10.42.1.")
    identity: str = made.id
    return identity


def a_machine(interface: str, size: str = "Standard_D2s_v5") -> Any:
    models = compute.models
    return models.VirtualMachine(
        location=PLACE,
        zones=["2"],
        tags={"shardwright-node": "n1"},
        hardware_profile=models.HardwareProfile(vm_size=size),
        storage_profile=models.StorageProfile(
            image_reference=models.ImageReference(
                publisher="Debian", offer="debian-12", sku="12-gen2", version="latest"
            )
        ),
        os_profile=models.OSProfile(
            computer_name="n1", admin_username="shard", custom_data=b64encode(b"#!/bin/sh\ntrue").decode()
        ),
        network_profile=models.NetworkProfile(
            network_interfaces=[models.NetworkInterfaceReference(id=interface, primary=True)]
        ),
        priority="Spot",
        eviction_policy="Delete",
        billing_profile=models.BillingProfile(max_price=0.5),
    )


def test_a_machine_from_network_to_deletion(machines: Any, networks: Any, group: str, control: SandboxControl) -> None:
    interface = an_interface(networks, group, "n1-nic")
    made = machines.virtual_machines.begin_create_or_update(group, "n1", a_machine(interface)).result()
    assert made.provisioning_state in ("Creating", "Succeeded")
    found = machines.virtual_machines.get(group, "N1", expand="instanceView")
    assert (found.priority, found.billing_profile.max_price) == ("Spot", 0.5)
    assert (found.tags, found.zones) == ({"shardwright-node": "n1"}, ["2"])
    assert found.os_profile.custom_data is None
    assert [row["user_data"] for row in control.instances()] == ["#!/bin/sh\ntrue"]
    assert [vm.name for vm in machines.virtual_machines.list(group)] == ["n1"]
    assert [vm.vm_id for vm in machines.virtual_machines.list_all()] == [found.vm_id]

    with pytest.raises(HttpResponseError, match="NicInUse"):
        networks.network_interfaces.begin_delete(group, "n1-nic").result()
    machines.virtual_machines.begin_delete(group, "n1").result()
    with pytest.raises(ResourceNotFoundError):
        machines.virtual_machines.get(group, "n1")
    networks.network_interfaces.begin_delete(group, "n1-nic").result()
    networks.subnets.begin_delete(group, "net", "nodes").result()
    networks.virtual_networks.begin_delete(group, "net").result()


def test_a_size_that_does_not_exist(machines: Any, networks: Any, group: str) -> None:
    interface = an_interface(networks, group, "n2-nic")
    with pytest.raises(HttpResponseError, match="vmSize"):
        machines.virtual_machines.begin_create_or_update(group, "n2", a_machine(interface, "Standard_D2s_v9")).result()


def test_no_capacity(machines: Any, networks: Any, group: str, control: SandboxControl) -> None:
    interface = an_interface(networks, group, "n3-nic")
    with control.faulty("no_capacity"), pytest.raises(HttpResponseError, match="SkuNotAvailable"):
        machines.virtual_machines.begin_create_or_update(group, "n3", a_machine(interface)).result()


def test_sizes_and_quotas(machines: Any) -> None:
    skus = {sku.name: sku for sku in machines.resource_skus.list(filter=f"location eq '{PLACE}'")}
    facts = {capability.name: capability.value for capability in skus["Standard_E4s_v5"].capabilities}
    assert (facts["vCPUs"], facts["MemoryGB"]) == ("4", "32")
    assert {usage.name.value for usage in machines.usage.list(PLACE)} >= {"cores", "lowPriorityCores"}


def test_strangers_are_turned_away(control: SandboxControl, ca_file: Path) -> None:
    stranger = client(compute.ComputeManagementClient, control, ca_file, secret="wrong")
    with pytest.raises(ClientAuthenticationError):
        list(stranger.virtual_machines.list_all())


def test_metrics_of_a_resource(control: SandboxControl, ca_file: Path) -> None:
    resource = f"subscriptions/{SUBSCRIPTION}/resourceGroups/shop/providers/Microsoft.Web/sites/api"
    token = Credential(control.url, ca_file, "sandbox").get_token().token
    headers = {"Authorization": f"Bearer {token}"}
    for minute, value in ((0, 1.0), (30, 3.0)):
        bundle = {"min": value, "max": value, "sum": value, "count": 1}
        data = {"baseData": {"metric": "Cores", "namespace": "Shop", "series": [bundle]}}
        body = {"time": f"2026-03-02T00:{minute:02}:00Z", "data": data}
        url = f"{control.url}/{resource}/metrics"
        assert httpx.post(url, json=body, headers=headers, verify=_context(ca_file)).status_code == 200
    asked = {"metricnames": "Cores", "interval": "PT1H", "aggregation": "Average,Maximum"}
    span = "2026-03-02T00:00:00Z/2026-03-02T02:00:00Z"
    metrics = client(monitor.MonitorManagementClient, control, ca_file).metrics
    first, second = metrics.list(resource, timespan=span, **asked).value[0].timeseries[0].data
    assert (first.average, first.maximum, second.average) == (2.0, 3.0, None)
    with pytest.raises(HttpResponseError, match="Valid metrics: Cores"):
        metrics.list(resource, timespan=span, **{**asked, "metricnames": "memory"})
