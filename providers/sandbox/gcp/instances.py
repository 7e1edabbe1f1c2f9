"""Compute Engine instances of the sandbox: insert, get, list, delete, labels and metadata."""

import hashlib
import re
from base64 import b64encode
from typing import Annotated, Any
from uuid import uuid4

from pydantic import Field

from providers.sandbox.cloud import Faults
from providers.sandbox.contract import InstanceState
from providers.sandbox.gcp.catalog import MACHINE_TYPES
from providers.sandbox.gcp.networks import Networks
from providers.sandbox.gcp.operations import Failure
from providers.sandbox.gcp.wire import Body, Document, GoogleError, checked, not_found, timestamp
from providers.sandbox.machines import Machine, Machines

LABEL_KEY = re.compile(r"^[a-z][a-z0-9_-]{0,62}$")
LABEL_VALUE = re.compile(r"^[a-z0-9_-]{0,63}$")


class _MetadataItem(Body):
    key: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,128}$")]
    value: Annotated[str, Field(max_length=262_144)] = ""


class Metadata(Body):
    items: list[_MetadataItem] = Field(default_factory=list)


class Labels(Body):
    labels: dict[str, str] = Field(default_factory=dict)


class _Scheduling(Body):
    provisioning_model: Annotated[str, Field(pattern="^(STANDARD|SPOT|FLEX_START|RESERVATION_BOUND)$")] = "STANDARD"
    preemptible: bool = False
    automatic_restart: bool | None = None
    instance_termination_action: Annotated[str, Field(pattern="^(STOP|DELETE)$")] = "STOP"


class _NetworkInterface(Body):
    network: str = ""
    subnetwork: str = ""


class InstanceBody(Body):
    name: Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$")]
    machine_type: str
    network_interfaces: list[_NetworkInterface] = Field(default_factory=list)
    disks: list[dict[str, Any]] = Field(default_factory=list)
    metadata: Metadata = Metadata()
    labels: dict[str, str] = Field(default_factory=dict)
    scheduling: _Scheduling = _Scheduling()


class Instances:
    """Instances by (zone, name); a deleted one leaves its name free at once."""

    def __init__(self, project: str, machines: Machines, networks: Networks, faults: Faults) -> None:
        self._project, self._machines, self._networks = project, machines, networks
        self._faults = faults
        self._documents: dict[tuple[str, str], tuple[Machine, Document]] = {}

    def insert(self, zone: str, document: Document, base: str) -> tuple[str, Failure | None]:
        """(the numeric id of the new instance, or "0"; why the operation fails, where it does)."""
        body = checked(InstanceBody, document)
        check_labels(body.labels)
        machine_type = MACHINE_TYPES.get(body.machine_type.rpartition("/")[2])
        if machine_type is None:
            raise GoogleError(400, f"Invalid value for field 'resource.machineType': '{body.machine_type}'.")
        if not body.disks:
            raise GoogleError(400, "Invalid value for field 'resource.disks': ''. At least one disk is required.")
        spot = body.scheduling.provisioning_model == "SPOT" or body.scheduling.preemptible
        if spot and body.scheduling.automatic_restart:
            raise GoogleError(400, "Scheduling must have automatic restart be false when preemptible or Spot.")
        if self._found(zone, body.name):
            raise GoogleError(409, f"The resource '{self.path(zone, body.name)}' already exists")
        if self._faults.no_capacity:
            return "0", Failure("ZONE_RESOURCE_POOL_EXHAUSTED", _exhausted(self._project, zone), 503)
        interfaces = [
            self._networks.attach(wanted.network, wanted.subnetwork, zone.rpartition("-")[0], base)
            for wanted in body.network_interfaces or [_NetworkInterface()]
        ]
        metadata = {item.key: item.value for item in body.metadata.items}
        machine = self._machines.start(
            str(uuid4().int % 2**63),
            name=body.name,
            zone=zone,
            region=zone.rpartition("-")[0],
            instance_type=machine_type.name,
            spot=spot,
            user_data=metadata.get("user-data") or metadata.get("startup-script", ""),
            private_ip=interfaces[0]["networkIP"],
            tags=_tags(body.labels, metadata),
        )
        self._documents[zone, body.name] = machine, {**document, "networkInterfaces": interfaces}
        return machine.instance_id, None

    def get(self, zone: str, name: str, base: str) -> Document:
        machine, document = self._known(zone, name)
        return self._shown(zone, machine, document, base)

    def delete(self, zone: str, name: str) -> str:
        """The numeric id of what was deleted."""
        machine, _ = self._known(zone, name)
        self._machines.stop(machine.instance_id)
        del self._documents[zone, machine.name]
        return machine.instance_id

    def listed(self, zone: str, base: str) -> list[Document]:
        here = [name for where, name in list(self._documents) if where == zone]
        return [self.get(zone, name, base) for name in here if self._found(zone, name)]

    def set_labels(self, zone: str, name: str, document: Document) -> str:
        labels = checked(Labels, document).labels
        check_labels(labels)
        machine, shown = self._known(zone, name)
        shown["labels"] = labels
        machine.tags = _tags(labels, _metadata_of(shown))
        return machine.instance_id

    def set_metadata(self, zone: str, name: str, document: Document) -> str:
        checked(Metadata, document)
        machine, shown = self._known(zone, name)
        shown["metadata"] = {"items": document.get("items", [])}
        machine.tags = _tags(shown.get("labels", {}), _metadata_of(shown))
        return machine.instance_id

    def path(self, zone: str, name: str) -> str:
        return f"projects/{self._project}/zones/{zone}/instances/{name}"

    def _known(self, zone: str, name: str) -> tuple[Machine, Document]:
        found = self._found(zone, name)
        if found is None:
            raise not_found(self.path(zone, name))
        return found

    def _found(self, zone: str, name: str) -> tuple[Machine, Document] | None:
        """By name or numeric id. A preempted instance stays, unless it asked to be deleted."""
        for (where, known_as), (machine, document) in list(self._documents.items()):
            if where != zone or name not in (known_as, machine.instance_id):
                continue
            deletes_itself = document.get("scheduling", {}).get("instanceTerminationAction") == "DELETE"
            if self._machines.state(machine) is InstanceState.TERMINATED and deletes_itself:
                del self._documents[where, known_as]
                return None
            return machine, document
        return None

    def _shown(self, zone: str, machine: Machine, document: Document, base: str) -> Document:
        link = f"{base}/compute/v1/projects/{self._project}"
        labels = document.get("labels", {})
        metadata = {"kind": "compute#metadata", "fingerprint": _fingerprint(document.get("metadata")), "items": []}
        scheduling = {
            "provisioningModel": "SPOT" if machine.spot else "STANDARD",
            "preemptible": machine.spot,
            "automaticRestart": not machine.spot,
            "onHostMaintenance": "TERMINATE" if machine.spot else "MIGRATE",
        }
        if machine.spot:
            scheduling["instanceTerminationAction"] = "STOP"
        return {
            **document,
            "kind": "compute#instance",
            "id": machine.instance_id,
            "creationTimestamp": timestamp(machine.launched_at),
            "status": _STATUS[self._machines.state(machine)],
            "cpuPlatform": "Intel Broadwell" if machine.instance_type.startswith("e2") else "Intel Ice Lake",
            "zone": f"{link}/zones/{zone}",
            "machineType": f"{link}/zones/{zone}/machineTypes/{machine.instance_type}",
            "labels": labels,
            "labelFingerprint": _fingerprint(labels),
            "metadata": {**metadata, **document.get("metadata", {})},
            "scheduling": {**scheduling, **document.get("scheduling", {})},
            "selfLink": f"{link}/zones/{zone}/instances/{machine.name}",
        }


_STATUS = {
    InstanceState.PENDING: "STAGING",
    InstanceState.RUNNING: "RUNNING",
    InstanceState.TERMINATED: "TERMINATED",
}


def check_labels(labels: dict[str, str]) -> None:
    for key, value in labels.items():
        if not LABEL_KEY.match(key) or not LABEL_VALUE.match(value):
            raise GoogleError(400, f"Invalid value for field 'resource.labels': '{key}={value}'. Label is invalid.")


def _tags(labels: dict[str, str], metadata: dict[str, str]) -> dict[str, str]:
    """Metadata says a node's name as it is; a label only its legal form."""
    exact = {key: value for key, value in metadata.items() if key.startswith("shardwright-")}
    return {**labels, **exact}


def _metadata_of(document: Document) -> dict[str, str]:
    items = document.get("metadata", {}).get("items", [])
    return {item["key"]: item.get("value", "") for item in items}


def _fingerprint(value: object) -> str:
    return b64encode(hashlib.sha256(repr(value).encode()).digest()[:8]).decode()


def _exhausted(project: str, zone: str) -> str:
    return (
        f"The zone 'projects/{project}/zones/{zone}' does not have enough resources available to fulfill the request. "
        "Try a different zone, or try again later."
    )
