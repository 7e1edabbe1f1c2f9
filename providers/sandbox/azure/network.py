"""Virtual networks, subnets, network interfaces and security groups of the sandbox's Azure."""

from ipaddress import IPv4Network
from typing import Annotated
from uuid import uuid4

from pydantic import Field

from providers.sandbox.azure.wire import ArmError, Body, Document, Reference, checked, id_key, last_part

NETWORK = "Microsoft.Network"
KINDS = {
    "virtualnetworks": "virtualNetworks",
    "networkinterfaces": "networkInterfaces",
    "networksecuritygroups": "networkSecurityGroups",
    "publicipaddresses": "publicIPAddresses",
}
"""Path segment in lower case -> as it is spelled."""


class _AddressSpace(Body):
    address_prefixes: Annotated[list[str], Field(min_length=1)]


class _VirtualNetworkProperties(Body):
    address_space: _AddressSpace


class _VirtualNetwork(Body):
    location: str
    properties: _VirtualNetworkProperties


class _SubnetProperties(Body):
    address_prefix: str = ""
    address_prefixes: list[str] = Field(default_factory=list)


class _Subnet(Body):
    properties: _SubnetProperties


class _IpConfigurationProperties(Body):
    subnet: Reference


class _IpConfiguration(Body):
    name: str
    properties: _IpConfigurationProperties


class _InterfaceProperties(Body):
    ip_configurations: Annotated[list[_IpConfiguration], Field(min_length=1)]


class _Interface(Body):
    location: str
    properties: _InterfaceProperties


class _Located(Body):
    location: str


class Network:
    """Documents by resource id in lower case; subnets are resources of their own and show up in their network."""

    def __init__(self) -> None:
        self._documents: dict[str, Document] = {}
        self._given: dict[str, int] = {}

    def put(self, resource_id: str, kind: str, body: Document) -> tuple[Document, bool]:
        """(the resource, whether it is new)."""
        known = self._documents.get(id_key(resource_id))
        properties = dict(body.get("properties") or {})
        if kind == "virtualNetworks":
            for prefix in checked(_VirtualNetwork, body).properties.address_space.address_prefixes:
                _block(prefix)
            subnets = properties.pop("subnets", [])
        elif kind == "networkInterfaces":
            properties["ipConfigurations"] = self._configured(resource_id, checked(_Interface, body), body, known)
        else:
            checked(_Located, body)
        document = {
            **body,
            "id": resource_id,
            "name": last_part(resource_id),
            "type": f"{NETWORK}/{kind}",
            "etag": f'W/"{uuid4()}"',
            "properties": {
                **properties,
                "provisioningState": "Succeeded",
                "resourceGuid": known["properties"]["resourceGuid"] if known else str(uuid4()),
            },
        }
        if known and "virtualMachine" in known["properties"]:
            document["properties"]["virtualMachine"] = known["properties"]["virtualMachine"]
        self._documents[id_key(resource_id)] = document
        if kind == "virtualNetworks":
            for subnet in subnets:
                self.put_subnet(f"{resource_id}/subnets/{subnet.get('name', '')}", subnet)
        return self.get(resource_id), known is None

    def put_subnet(self, resource_id: str, body: Document) -> tuple[Document, bool]:
        network = self.get(resource_id.rpartition("/subnets/")[0])
        asked = checked(_Subnet, body).properties
        prefix = asked.address_prefix or next(iter(asked.address_prefixes), "")
        block = _block(prefix)
        spaces = [_block(space) for space in network["properties"]["addressSpace"]["addressPrefixes"]]
        if not any(block.subnet_of(space) for space in spaces):
            message = f"Subnet '{last_part(resource_id)}' is not valid because its IP address range is outside the "
            raise ArmError(400, "NetcfgInvalidSubnet", message + "IP address range of virtual network.")
        is_new = id_key(resource_id) not in self._documents
        self._documents[id_key(resource_id)] = {
            "id": resource_id,
            "name": last_part(resource_id),
            "type": f"{NETWORK}/virtualNetworks/subnets",
            "etag": f'W/"{uuid4()}"',
            "properties": {
                **(body.get("properties") or {}),
                "addressPrefix": prefix,
                "provisioningState": "Succeeded",
                "privateEndpointNetworkPolicies": "Disabled",
                "privateLinkServiceNetworkPolicies": "Enabled",
            },
        }
        return self.get(resource_id), is_new

    def get(self, resource_id: str) -> Document:
        document = self._documents.get(id_key(resource_id))
        if document is None:
            raise ArmError(404, "ResourceNotFound", f"The Resource '{resource_id}' was not found.")
        if document["type"] != f"{NETWORK}/virtualNetworks":
            return document
        subnets = [found for key, found in self._documents.items() if key.startswith(id_key(resource_id) + "/subnets/")]
        return {**document, "properties": {**document["properties"], "subnets": subnets}}

    def listed(self, prefix: str, kind: str) -> list[Document]:
        """Every resource of a kind (e.g. ``virtualNetworks/subnets``) whose id begins with ``prefix``."""
        return [
            self.get(document["id"])
            for key, document in self._documents.items()
            if key.startswith(id_key(prefix) + "/") and document["type"] == f"{NETWORK}/{kind}"
        ]

    def delete(self, resource_id: str) -> bool:
        """Whether it was there. Raises ArmError 400 while something uses it."""
        key = id_key(resource_id)
        document = self._documents.get(key)
        if document is None:
            return False
        if "virtualMachine" in document["properties"]:
            machine = document["properties"]["virtualMachine"]["id"]
            raise ArmError(400, "NicInUse", f"Network Interface {resource_id} is used by existing resource {machine}.")
        used = [
            interface["id"]
            for interface in self._documents.values()
            for configuration in interface["properties"].get("ipConfigurations", [])
            if (id_key(configuration["properties"]["subnet"]["id"]) + "/").startswith(key + "/")
        ]
        if used:
            message = f"Subnet {last_part(resource_id)} is in use by {used[0]} and cannot be deleted."
            raise ArmError(400, "InUseSubnetCannotBeDeleted", message)
        for within in [known for known in self._documents if (known + "/").startswith(key + "/")]:
            del self._documents[within]
        return True

    def drop_group(self, group_id: str) -> None:
        for key in [known for known in self._documents if known.startswith(id_key(group_id) + "/")]:
            del self._documents[key]

    def check_free(self, interface_id: str, machine_id: str) -> None:
        """Raises ArmError: 400 where there is no such interface, 409 where another machine has it."""
        document = self._documents.get(id_key(interface_id))
        if document is None:
            message = f"Resource {interface_id} referenced by resource {machine_id} was not found."
            raise ArmError(400, "InvalidResourceReference", message)
        tied = document["properties"].get("virtualMachine")
        if tied and id_key(tied["id"]) != id_key(machine_id):
            raise ArmError(409, "NicInUse", f"Network Interface {interface_id} is used by existing VM {tied['id']}.")

    def attach(self, interface_id: str, machine_id: str) -> str:
        """Ties a free interface to a machine; its private address."""
        properties = self._documents[id_key(interface_id)]["properties"]
        properties["virtualMachine"] = {"id": machine_id}
        address: str = properties["ipConfigurations"][0]["properties"]["privateIPAddress"]
        return address

    def detach(self, machine_id: str) -> None:
        for document in self._documents.values():
            tied = document["properties"].get("virtualMachine")
            if tied and id_key(tied["id"]) == id_key(machine_id):
                del document["properties"]["virtualMachine"]

    def _configured(
        self, resource_id: str, asked: _Interface, body: Document, known: Document | None
    ) -> list[Document]:
        """The interface's configurations with an address each; an update keeps the addresses it has."""
        kept = {
            found["name"]: found["properties"]["privateIPAddress"]
            for found in (known or {"properties": {}})["properties"].get("ipConfigurations", [])
        }
        configured = []
        for configuration, document in zip(
            asked.properties.ip_configurations, body["properties"]["ipConfigurations"], strict=True
        ):
            address = kept.get(configuration.name) or self._next_address(configuration.properties.subnet.id)
            properties = {"privateIPAllocationMethod": "Dynamic", "primary": True, **document["properties"]}
            configured.append(
                {
                    "id": f"{resource_id}/ipConfigurations/{configuration.name}",
                    "name": configuration.name,
                    "properties": {**properties, "privateIPAddress": address, "provisioningState": "Succeeded"},
                }
            )
        return configured

    def _next_address(self, subnet_id: str) -> str:
        subnet = self._documents.get(id_key(subnet_id))
        if subnet is None:
            raise ArmError(400, "InvalidResourceReference", f"Resource {subnet_id} was not found.")
        block = _block(subnet["properties"]["addressPrefix"])
        given = self._given.get(id_key(subnet_id), 3) + 1  # Azure keeps the first four addresses of a subnet
        if given >= block.num_addresses - 1:
            raise ArmError(400, "SubnetIsFull", f"Subnet {subnet_id} does not have enough capacity for 1 IP addresses.")
        self._given[id_key(subnet_id)] = given
        return str(block[given])


def _block(prefix: str) -> IPv4Network:
    try:
        return IPv4Network(prefix)
    except ValueError:
        raise ArmError(
            400, "InvalidCIDRNotation", f"The address prefix {prefix} has an invalid CIDR notation."
        ) from None
