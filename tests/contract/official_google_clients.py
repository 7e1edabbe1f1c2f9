"""The sandbox's Google Cloud as Google's own client libraries see it."""

from collections.abc import Iterator

import httpx
import pytest

from tests.contract.provider_contract import SandboxControl, running_server

compute_v1 = pytest.importorskip("google.cloud.compute_v1")
billing_v1 = pytest.importorskip("google.cloud.billing_v1")

from google.api_core.client_options import ClientOptions  # noqa: E402
from google.api_core.exceptions import Conflict, NotFound  # noqa: E402
from google.auth.exceptions import GoogleAuthError  # noqa: E402
from google.auth.transport.requests import Request  # noqa: E402
from google.oauth2 import service_account  # noqa: E402
from google.oauth2.credentials import Credentials  # noqa: E402

PROJECT, ZONE, REGION = "shardwright-sandbox", "europe-west1-b", "europe-west1"


@pytest.fixture(scope="module")
def control() -> Iterator[SandboxControl]:
    with running_server("providers.sandbox.gcp", "--account", PROJECT) as server:
        yield server


@pytest.fixture(scope="module")
def given(control: SandboxControl) -> dict[str, object]:
    """What every client is made with."""
    return {"credentials": Credentials("sandbox"), "client_options": ClientOptions(api_endpoint=control.url)}


def client_of(kind: type, given: dict[str, object], **operations: type) -> object:
    """A client whose operations are polled at the same endpoint; the library would ask the public one."""
    client = kind(**given)
    for name, operations_kind in operations.items():
        client.transport._extended_operations_services[name] = operations_kind(**given)
    return client


@pytest.fixture(scope="module")
def instances(given: dict[str, object]) -> object:
    return client_of(compute_v1.InstancesClient, given, zone_operations=compute_v1.ZoneOperationsClient)


def instance(name: str, subnetwork: str) -> object:
    return compute_v1.Instance(
        name=name,
        machine_type=f"zones/{ZONE}/machineTypes/c3-standard-4",
        disks=[
            compute_v1.AttachedDisk(
                boot=True, initialize_params=compute_v1.AttachedDiskInitializeParams(source_image="global/images/x")
            )
        ],
        network_interfaces=[compute_v1.NetworkInterface(subnetwork=subnetwork)],
        labels={"shardwright-node": name},
        metadata=compute_v1.Metadata(items=[compute_v1.Items(key="user-data", value="#!/bin/sh\ntrue")]),
        scheduling=compute_v1.Scheduling(provisioning_model="SPOT", instance_termination_action="DELETE"),
    )


def test_a_machine_from_network_to_deletion(
    instances: object, given: dict[str, object], control: SandboxControl
) -> None:
    networks = client_of(compute_v1.NetworksClient, given, global_operations=compute_v1.GlobalOperationsClient)
    subnetworks = client_of(compute_v1.SubnetworksClient, given, region_operations=compute_v1.RegionOperationsClient)
    firewalls = client_of(compute_v1.FirewallsClient, given, global_operations=compute_v1.GlobalOperationsClient)
    network = compute_v1.Network(name="cell", auto_create_subnetworks=False)
    networks.insert(project=PROJECT, network_resource=network).result(timeout=30)
    link = networks.get(project=PROJECT, network="cell").self_link
    subnetwork = compute_v1.Subnetwork(name="nodes", network=link, ip_cidr_range="10.77.0.0/24")
    subnetworks.insert(project=PROJECT, region=REGION, subnetwork_resource=subnetwork).result(timeout=30)
    firewall = compute_v1.Firewall(
        name="agents", network=link, allowed=[compute_v1.Allowed(I_p_protocol="tcp", ports=["7400"])]
    )
    firewalls.insert(project=PROJECT, firewall_resource=firewall).result(timeout=30)
    place = subnetworks.get(project=PROJECT, region=REGION, subnetwork="nodes").self_link
    instances.insert(project=PROJECT, zone=ZONE, instance_resource=instance("n1", place)).result(timeout=30)

    found = instances.get(project=PROJECT, zone=ZONE, instance="n1")
    assert found.scheduling.provisioning_model == "SPOT"
    assert {item.key: item.value for item in found.metadata.items} == {"user-data": "#!/bin/sh\ntrue"}
    assert dict(found.labels) == {"shardwright-node": "n1"}
    assert found.network_interfaces[0].network_i_p == "10.77.0.2"
    assert [row["user_data"] for row in control.instances()] == ["#!/bin/sh\ntrue"]

    with pytest.raises(Conflict):
        instances.insert(project=PROJECT, zone=ZONE, instance_resource=instance("n1", place))
    listing = {"project": PROJECT, "filter": "labels.shardwright-node=n1"}
    zones = {zone: [i.name for i in found.instances] for zone, found in instances.aggregated_list(listing)}
    assert zones[f"zones/{ZONE}"] == ["n1"]
    assert not any(found.instances for _, found in instances.aggregated_list({**listing, "filter": "name=other"}))

    instances.delete(project=PROJECT, zone=ZONE, instance="n1").result(timeout=30)
    with pytest.raises(NotFound):
        instances.get(project=PROJECT, zone=ZONE, instance="n1")
    firewalls.delete(project=PROJECT, firewall="agents").result(timeout=30)
    subnetworks.delete(project=PROJECT, region=REGION, subnetwork="nodes").result(timeout=30)
    networks.delete(project=PROJECT, network="cell").result(timeout=30)


def test_a_machine_type_that_is_not_sold_is_a_bad_request(instances: object) -> None:
    wrong = compute_v1.Instance(name="n2", machine_type="zones/z/machineTypes/x1-huge-960")
    with pytest.raises(Exception, match="machineType"):
        instances.insert(project=PROJECT, zone=ZONE, instance_resource=wrong)


def test_places_and_machine_types(given: dict[str, object]) -> None:
    assert [zone.name for zone in compute_v1.ZonesClient(**given).list(project=PROJECT)][:2] == [
        "us-central1-a",
        "us-central1-b",
    ]
    listed = compute_v1.MachineTypesClient(**given).list({"project": PROJECT, "zone": ZONE, "max_results": 5})
    types = {found.name: found for found in listed}
    assert len(types) > 5, "paged"
    assert (types["n2-highmem-4"].guest_cpus, types["n2-highmem-4"].memory_mb) == (4, 32 * 1024)
    quotas = compute_v1.RegionsClient(**given).get(project=PROJECT, region=REGION).quotas
    assert {quota.metric for quota in quotas} >= {"CPUS", "N2_CPUS"}


def test_strangers_are_turned_away(control: SandboxControl) -> None:
    stranger = compute_v1.ZonesClient(
        credentials=Credentials("nobody"), client_options=ClientOptions(api_endpoint=control.url)
    )
    with pytest.raises(GoogleAuthError):
        list(stranger.list(project=PROJECT, timeout=5))


def test_a_service_account_key_from_the_console(control: SandboxControl) -> None:
    key = httpx.get(f"{control.url}/_sandbox/service-account").json()
    scopes = ["https://www.googleapis.com/auth/cloud-platform"]
    keyed = service_account.Credentials.from_service_account_info(key, scopes=scopes)
    keyed.refresh(Request())
    options = ClientOptions(api_endpoint=control.url)
    zones = compute_v1.ZonesClient(credentials=Credentials(keyed.token), client_options=options)
    assert [zone.name for zone in zones.list(project=PROJECT)]


def test_the_price_catalogue(given: dict[str, object]) -> None:
    catalogue = billing_v1.CloudCatalogClient(transport="rest", **given)
    skus = {sku.description: sku for sku in catalogue.list_skus({"parent": "services/6F81-5844-456A", "page_size": 7})}
    core = skus["N2 Instance Core running in EMEA"]
    price = core.pricing_info[0].pricing_expression.tiered_rates[0].unit_price
    assert (price.currency_code, price.units, price.nanos) == ("USD", 0, 34_775_000)
    assert skus["Spot Preemptible C3 Instance Ram running in Americas"].category.usage_type == "Preemptible"
