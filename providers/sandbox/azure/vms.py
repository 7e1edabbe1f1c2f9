"""Virtual machines of the sandbox's Azure: create or update, show, evict, delete."""

import binascii
from base64 import b64decode
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Any
from uuid import uuid4

from pydantic import Field

from engine.model.market import PurchaseOption
from providers.sandbox.azure.catalog import SIZES, ZONES, VmSize
from providers.sandbox.azure.network import Network
from providers.sandbox.azure.wire import ArmError, Body, Document, Reference, checked, id_key, last_part, timestamp
from providers.sandbox.cloud import Faults
from providers.sandbox.contract import InstanceState
from providers.sandbox.machines import Machine, Machines
from providers.sandbox.prices import PriceBoard

EVICTION_NOTICE = timedelta(seconds=30)
_POWER = {
    InstanceState.PENDING: ("starting", "VM starting"),
    InstanceState.RUNNING: ("running", "VM running"),
    InstanceState.TERMINATED: ("deallocated", "VM deallocated"),
}


class _HardwareProfile(Body):
    vm_size: str


class _OsProfile(Body):
    computer_name: str
    admin_username: str
    custom_data: str = ""


class _NetworkProfile(Body):
    network_interfaces: Annotated[list[Reference], Field(min_length=1)]


class _BillingProfile(Body):
    max_price: float = -1.0


class _VmProperties(Body):
    hardware_profile: _HardwareProfile
    storage_profile: dict[str, Any]
    os_profile: _OsProfile
    network_profile: _NetworkProfile
    priority: Annotated[str, Field(pattern="^(Regular|Low|Spot)$")] = "Regular"
    eviction_policy: Annotated[str, Field(pattern="^(Deallocate|Delete)$")] = "Deallocate"
    billing_profile: _BillingProfile | None = None
    user_data: str = ""


class _Vm(Body):
    location: str
    properties: _VmProperties
    tags: dict[str, str] = Field(default_factory=dict)
    zones: list[str] = Field(default_factory=list)


class VirtualMachines:
    """Machines by resource id in lower case. A machine evicted with policy Delete disappears by itself."""

    def __init__(self, machines: Machines, network: Network, board: PriceBoard, faults: Faults) -> None:
        self._machines, self._network, self._board, self._faults = machines, network, board, faults
        self._documents: dict[str, tuple[Machine, Document]] = {}

    def put(self, resource_id: str, body: Document, regions: tuple[str, ...]) -> tuple[Document, bool]:
        """(the machine, whether it is new); of one that exists only the tags can be changed."""
        asked = checked(_Vm, body)
        self.evict_overpriced()
        known = self._documents.get(id_key(resource_id))
        if known:
            return self.patch(resource_id, body), False
        location = asked.location.replace(" ", "").lower()
        size = self._sold(asked, location, regions)
        ceiling = self._ceiling(asked, size, location)
        interfaces = asked.properties.network_profile.network_interfaces
        user_data = _decoded(asked.properties.os_profile.custom_data) or _decoded(asked.properties.user_data)
        for interface in interfaces:
            self._network.check_free(interface.id, resource_id)
        addresses = [self._network.attach(interface.id, resource_id) for interface in interfaces]
        machine = self._machines.start(
            str(uuid4()),
            name=last_part(resource_id),
            region=location,
            zone=asked.zones[0] if asked.zones else "1",
            instance_type=size.name,
            spot=asked.properties.priority in ("Spot", "Low"),
            user_data=user_data,
            private_ip=addresses[0],
            tags=asked.tags,
            price_ceiling=ceiling,
        )
        self._documents[id_key(resource_id)] = machine, {**body, "id": resource_id, "location": location}
        return self.get(resource_id), True

    def get(self, resource_id: str, expand: str = "") -> Document:
        machine, document = self._known(resource_id)
        properties = {key: value for key, value in document["properties"].items() if key != "userData"}
        os_profile = {key: value for key, value in properties["osProfile"].items() if key not in _SECRET}
        properties["osProfile"] = {**os_profile, "allowExtensionOperations": True, "requireGuestProvisionSignal": True}
        if "userData" in expand and "userData" in document["properties"]:
            properties["userData"] = document["properties"]["userData"]
        if "instanceView" in expand:
            properties["instanceView"] = self.instance_view(resource_id)
        pending = self._machines.state(machine) is InstanceState.PENDING
        return {
            **document,
            "name": machine.name,
            "type": "Microsoft.Compute/virtualMachines",
            "properties": {
                **properties,
                "vmId": machine.instance_id,
                "provisioningState": "Creating" if pending else "Succeeded",
                "timeCreated": timestamp(machine.launched_at),
            },
        }

    def instance_view(self, resource_id: str) -> Document:
        machine, _ = self._known(resource_id)
        code, text = _POWER[self._machines.state(machine)]
        return {
            "computerName": machine.name,
            "statuses": [
                {"code": "ProvisioningState/succeeded", "level": "Info", "displayStatus": "Provisioning succeeded"},
                {"code": f"PowerState/{code}", "level": "Info", "displayStatus": text},
            ],
        }

    def patch(self, resource_id: str, body: Document) -> Document:
        machine, document = self._known(resource_id)
        if "tags" in body:
            machine.tags = dict(body["tags"] or {})
            document["tags"] = dict(machine.tags)
        return self.get(resource_id)

    def listed(self, prefix: str) -> list[Document]:
        self.evict_overpriced()
        keys = [key for key in list(self._documents) if key.startswith(id_key(prefix) + "/") and self._present(key)]
        return [self.get(key) for key in keys]

    def statuses(self, prefix: str) -> list[Document]:
        """What ``statusOnly=true`` lists: who they are, and whether they run."""
        return [
            {
                **{key: found[key] for key in ("id", "name", "type", "location")},
                "properties": {"vmId": found["properties"]["vmId"], "instanceView": self.instance_view(found["id"])},
            }
            for found in self.listed(prefix)
        ]

    def delete(self, resource_id: str) -> bool:
        """Whether it was there."""
        key = id_key(resource_id)
        if not self._present(key):
            return False
        machine, _ = self._documents.pop(key)
        self._machines.stop(machine.instance_id)
        self._network.detach(resource_id)
        return True

    def drop_group(self, group_id: str) -> None:
        for key in [known for known in self._documents if known.startswith(id_key(group_id) + "/")]:
            self.delete(key)

    def evict(self, resource_id: str) -> None:
        """simulateEviction: notice now, gone half a minute later. Only a spot machine can be evicted."""
        machine, _ = self._known(resource_id)
        if not machine.spot:
            raise ArmError(409, "OperationNotAllowed", "Simulate eviction is only supported for spot VMs.")
        self._machines.reclaim(machine.instance_id, EVICTION_NOTICE, "Preempt")

    def evict_overpriced(self) -> None:
        """Spot machines whose maximum price the market has passed get their notice."""
        for machine in self._machines.live():
            key = SIZES[machine.instance_type].key(machine.region, PurchaseOption.SPOT)
            if machine.spot and machine.price_ceiling is not None and self._board.now(key) > machine.price_ceiling:
                self._machines.reclaim(machine.instance_id, EVICTION_NOTICE, "Preempt")

    def _known(self, resource_id: str) -> tuple[Machine, Document]:
        if not self._present(id_key(resource_id)):
            raise ArmError(404, "ResourceNotFound", f"The Resource '{resource_id}' was not found.")
        return self._documents[id_key(resource_id)]

    def _present(self, key: str) -> bool:
        if key not in self._documents:
            return False
        machine, document = self._documents[key]
        deletes_itself = document["properties"].get("evictionPolicy") == "Delete"
        if deletes_itself and self._machines.state(machine) is InstanceState.TERMINATED:
            del self._documents[key]
            self._network.detach(document["id"])
            return False
        return True

    def _sold(self, asked: _Vm, location: str, regions: tuple[str, ...]) -> VmSize:
        """The size, if it can be had there. Raises ArmError 400 (unknown) and 409 (no capacity)."""
        size = SIZES.get(asked.properties.hardware_profile.vm_size)
        if location not in regions:
            raise ArmError(400, "LocationNotAvailableForResourceType", f"The location '{location}' is not available.")
        if size is None:
            raise ArmError(400, "InvalidParameter", "The value of parameter vmSize is invalid.")
        if any(zone not in ZONES for zone in asked.zones):
            raise ArmError(400, "InvalidAvailabilityZone", f"The zone(s) '{','.join(asked.zones)}' are not supported.")
        if self._faults.no_capacity:
            message = (
                "The requested VM size for resource 'Following SKUs have failed for Capacity Restrictions: "
                f"{size.name}' is currently not available in location '{location}'."
            )
            raise ArmError(409, "SkuNotAvailable", message)
        return size

    def _ceiling(self, asked: _Vm, size: VmSize, location: str) -> Decimal | None:
        if asked.properties.priority == "Regular":
            return None
        if not size.spot_capable:
            raise ArmError(409, "OperationNotAllowed", f"VM size {size.name} does not support Spot priority.")
        ceiling = asked.properties.billing_profile.max_price if asked.properties.billing_profile else -1.0
        if ceiling == -1:
            return None
        price = self._board.now(size.key(location, PurchaseOption.SPOT))
        if Decimal(repr(ceiling)) < price:
            message = f"The max price provided is lower than the current spot price of {price} USD/hour."
            raise ArmError(409, "OperationNotAllowed", message)
        return Decimal(repr(ceiling))


_SECRET = ("customData", "adminPassword")
"""What Azure never shows again."""


def _decoded(text: str) -> str:
    try:
        return b64decode(text, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise ArmError(400, "InvalidParameter", "Custom data and user data must be in Base64 encoding.") from None
