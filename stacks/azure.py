"""One Azure cell: a resource group with a network, and per planned node an address, an interface and a machine."""

import base64
from collections.abc import Mapping
from functools import partial
from urllib.parse import urlsplit

import pulumi
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pulumi_azure_native import Provider
from pulumi_azure_native.compute import VirtualMachine
from pulumi_azure_native.network import (
    NetworkInterface,
    NetworkSecurityGroup,
    PublicIPAddress,
    Subnet,
    VirtualNetwork,
)
from pulumi_azure_native.resources import ResourceGroup

from engine.model.ids import NodeId
from engine.model.placement import Cell
from engine.model.plan import CellPlan, PlannedNode
from providers.base import InstanceRecord, ProviderSettings
from providers.rest import NO_CAPACITY as NO_CAPACITY
from stacks.adoption import Adoption, Inputs, InstanceOf
from stacks.base import PulumiFn
from stacks.ingress import NODE_INGRESS
from stacks.naming import CELL_NETWORK, NODE_DISK_GIB, PRICE_TAG, is_spot, node_tags, shared_tags

_IMAGE = {"publisher": "Debian", "offer": "debian-12", "sku": "12-gen2", "version": "latest"}
_DECIDED_AT_CREATE = ["osProfile", "billingProfile", "storageProfile.imageReference", f'tags["{PRICE_TAG}"]']


class _Adoption:
    """Names are ours, so every id follows from the inputs."""

    instance = InstanceOf("azure-native:compute:VirtualMachine", "tags", id_output="vmId")

    def instance_id(self, cell: Cell, record: InstanceRecord) -> str:
        return f"{_group_path(cell)}/providers/Microsoft.Compute/virtualMachines/{record.node}"

    def shared_id(self, cell: Cell, settings: ProviderSettings, type_: str, inputs: Inputs) -> str | None:
        place = _PLACES.get(type_)
        return None if place is None else _group_path(cell) + place.format(**inputs)


_PLACES = {
    "azure-native:resources:ResourceGroup": "",
    "azure-native:network:VirtualNetwork": "/providers/Microsoft.Network/virtualNetworks/{virtualNetworkName}",
    "azure-native:network:Subnet": (
        "/providers/Microsoft.Network/virtualNetworks/{virtualNetworkName}/subnets/{subnetName}"
    ),
    "azure-native:network:NetworkSecurityGroup": (
        "/providers/Microsoft.Network/networkSecurityGroups/{networkSecurityGroupName}"
    ),
    "azure-native:network:PublicIPAddress": "/providers/Microsoft.Network/publicIPAddresses/{publicIpAddressName}",
    "azure-native:network:NetworkInterface": "/providers/Microsoft.Network/networkInterfaces/{networkInterfaceName}",
}
adoption: Adoption = _Adoption()
PLUGIN = "azure-native"


def program(cell: Cell, plan: CellPlan, settings: ProviderSettings, user_data: Mapping[NodeId, str]) -> PulumiFn:
    """See ``stacks.base.Program``."""
    return partial(_declare, cell, plan, settings, user_data)


def resource_group_name(cell: Cell) -> str:
    return f"shardwright-{cell.region}"


def _group_path(cell: Cell) -> str:
    return f"/subscriptions/{cell.account}/resourceGroups/{resource_group_name(cell)}"


def _declare(cell: Cell, plan: CellPlan, settings: ProviderSettings, user_data: Mapping[NodeId, str]) -> None:
    provider = _provider(cell, settings)
    options = pulumi.ResourceOptions(provider=provider)
    group = ResourceGroup(
        "group",
        resource_group_name=resource_group_name(cell),
        location=cell.region,
        tags=shared_tags(cell, "group"),
        opts=options,
    )
    subnet, rules = _network(cell, group, options)
    key = _unknown_login_key()
    machines, addresses = {}, {}
    for planned in plan.nodes:
        interface = _interface(cell, planned, group, subnet, rules, options)
        machines[planned.node.id] = _machine(
            cell, planned, group, interface, user_data.get(planned.node.id, ""), key, provider
        )
        addresses[planned.node.id] = interface.ip_configurations[0].private_ip_address
    pulumi.export(
        "nodes",
        {name: {"instance_id": machine.vm_id, "address": addresses[name]} for name, machine in machines.items()},
    )


def _provider(cell: Cell, settings: ProviderSettings) -> Provider:
    secret = {key: pulumi.Output.secret(value.get_secret_value()) for key, value in settings.credentials.items()}
    return Provider(
        "azure",
        subscription_id=cell.account,
        location=cell.region,
        tenant_id=secret.get("tenant_id"),
        client_id=secret.get("client_id"),
        client_secret=secret.get("client_secret"),
        metadata_host=urlsplit(settings.endpoint).netloc if settings.endpoint else None,
        disable_instance_discovery=True if settings.endpoint else None,
    )


def _network(cell: Cell, group: ResourceGroup, options: pulumi.ResourceOptions) -> tuple[Subnet, NetworkSecurityGroup]:
    network = VirtualNetwork(
        "network",
        resource_group_name=group.name,
        virtual_network_name="shardwright",
        location=cell.region,
        address_space={"address_prefixes": [str(CELL_NETWORK)]},
        tags=shared_tags(cell, "network"),
        opts=pulumi.ResourceOptions.merge(options, pulumi.ResourceOptions(ignore_changes=["subnets"])),
    )
    rules = NetworkSecurityGroup(
        "nodes",
        resource_group_name=group.name,
        network_security_group_name="shardwright-nodes",
        location=cell.region,
        security_rules=[
            {
                "name": f"in-{rule.first_port}",
                "description": rule.why,
                "priority": 100 + position,
                "direction": "Inbound",
                "access": "Allow",
                "protocol": rule.protocol.capitalize(),
                "source_address_prefix": rule.source,
                "source_port_range": "*",
                "destination_address_prefix": "*",
                "destination_port_range": f"{rule.first_port}-{rule.last_port}",
            }
            for position, rule in enumerate(NODE_INGRESS)
        ],
        tags=shared_tags(cell, "nodes"),
        opts=options,
    )
    subnet = Subnet(
        "subnet",
        resource_group_name=group.name,
        virtual_network_name=network.name,
        subnet_name="nodes",
        address_prefix=str(CELL_NETWORK),
        opts=options,
    )
    return subnet, rules


def _interface(
    cell: Cell,
    planned: PlannedNode,
    group: ResourceGroup,
    subnet: Subnet,
    rules: NetworkSecurityGroup,
    options: pulumi.ResourceOptions,
) -> NetworkInterface:
    name = planned.node.id
    tags = {key: value for key, value in node_tags(cell, planned).items() if key != PRICE_TAG}
    address = PublicIPAddress(
        f"{name}-address",
        resource_group_name=group.name,
        public_ip_address_name=f"{name}-address",
        location=cell.region,
        public_ip_allocation_method="Static",
        sku={"name": "Standard"},
        tags=tags,
        opts=options,
    )
    return NetworkInterface(
        f"{name}-interface",
        resource_group_name=group.name,
        network_interface_name=f"{name}-interface",
        location=cell.region,
        network_security_group={"id": rules.id},
        ip_configurations=[
            {
                "name": "main",
                "primary": True,
                "private_ip_allocation_method": "Dynamic",
                "subnet": {"id": subnet.id},
                "public_ip_address": {"id": address.id},
            }
        ],
        tags=tags,
        opts=options,
    )


def _machine(
    cell: Cell,
    planned: PlannedNode,
    group: ResourceGroup,
    interface: NetworkInterface,
    user_data: str,
    login_key: str,
    provider: Provider,
) -> VirtualMachine:
    name = planned.node.id
    custom_data = base64.b64encode(user_data.encode()).decode()
    return VirtualMachine(
        name,
        vm_name=name,
        resource_group_name=group.name,
        location=cell.region,
        zones=_zones(cell, planned),
        hardware_profile={"vm_size": planned.node.instance_type},
        network_profile={
            "network_interfaces": [{"id": interface.id, "primary": True, "delete_option": "Detach"}],
        },
        storage_profile={
            "image_reference": _IMAGE,
            "os_disk": {
                "create_option": "FromImage",
                "delete_option": "Delete",
                "disk_size_gb": NODE_DISK_GIB,
                "managed_disk": {"storage_account_type": "StandardSSD_LRS"},
            },
        },
        os_profile={
            "computer_name": name,
            "admin_username": "shardwright",
            "custom_data": pulumi.Output.secret(custom_data),
            "linux_configuration": {
                "disable_password_authentication": True,
                "ssh": {
                    "public_keys": [{"path": "/home/shardwright/.ssh/authorized_keys", "key_data": login_key}],
                },
            },
        },
        **_spot(planned),
        tags=node_tags(cell, planned),
        opts=pulumi.ResourceOptions(provider=provider, ignore_changes=_DECIDED_AT_CREATE),
    )


def _zones(cell: Cell, planned: PlannedNode) -> list[str] | None:
    """Azure numbers a region's zones: ``1`` or ``eastus-1``; none where the offer is for the region as a whole."""
    zone = planned.node.zone.rpartition("-")[2]
    return [zone] if zone.isdigit() else None


def _spot(planned: PlannedNode) -> dict[str, object]:
    if not is_spot(planned):
        return {"priority": "Regular"}
    # Azure's API takes the ceiling as a JSON number (up to 5 decimal places), so it leaves Decimal only here.
    ceiling = float(planned.quote.price_ceiling.amount) if planned.quote is not None else -1.0
    return {"priority": "Spot", "eviction_policy": "Delete", "billing_profile": {"max_price": ceiling}}


def _unknown_login_key() -> str:
    """Azure insists on a login key for Linux. Nobody keeps the private half: nodes are reached through their agents."""
    public = Ed25519PrivateKey.generate().public_key()
    return public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
