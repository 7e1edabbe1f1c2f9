"""Networks, subnetworks and firewalls of the sandbox's Compute Engine."""

import re
from ipaddress import IPv4Network
from typing import Annotated, Any
from uuid import uuid4

from pydantic import Field

from engine.clock import Clock
from providers.sandbox.gcp.wire import Body, Document, GoogleError, checked, not_found, timestamp

DEFAULT_CIDRS = {"us-central1": "10.128.0.0/20", "europe-west1": "10.132.0.0/20"}
"""The subnetworks of a project's default network, as Google numbers them."""

KINDS = {"networks": "compute#network", "subnetworks": "compute#subnetwork", "firewalls": "compute#firewall"}


class _Resource(Body):
    name: Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$")]


class _Network(_Resource):
    auto_create_subnetworks: bool = True


class _Subnetwork(_Resource):
    network: str
    ip_cidr_range: str


class _Firewall(_Resource):
    network: str = ""
    allowed: list[dict[str, Any]] = Field(default_factory=list)
    denied: list[dict[str, Any]] = Field(default_factory=list)


_MODELS: dict[str, type[_Resource]] = {"networks": _Network, "subnetworks": _Subnetwork, "firewalls": _Firewall}


class Networks:
    """Documents by (collection, scope, name); a scope is ``global`` or ``regions/R``. The default network exists."""

    def __init__(self, project: str, regions: tuple[str, ...], clock: Clock) -> None:
        self._project, self._regions, self._clock = project, regions, clock
        self._documents: dict[tuple[str, str, str], Document] = {}
        self._addresses_given: dict[tuple[str, str], int] = {}
        self.insert("networks", "global", {"name": "default", "autoCreateSubnetworks": True})

    def insert(self, collection: str, scope: str, document: Document) -> str:
        """The new resource's numeric id. Raises GoogleError 400, 404 (its network) and 409."""
        body = checked(_MODELS[collection], document)
        if (collection, scope, body.name) in self._documents:
            raise GoogleError(409, f"The resource '{self.path(collection, scope, body.name)}' already exists")
        if isinstance(body, _Subnetwork):
            self._check_range(body)
        if isinstance(body, _Subnetwork | _Firewall) and body.network:
            self.document("networks", "global", last_part(body.network))
        resource_id = str(uuid4().int % 2**63)
        self._documents[collection, scope, body.name] = {
            **document,
            "id": resource_id,
            "kind": KINDS[collection],
            "creationTimestamp": timestamp(self._clock.now()),
        }
        if isinstance(body, _Network) and body.auto_create_subnetworks and "IPv4Range" not in document:
            self._create_subnetworks(body.name)
        return resource_id

    def document(self, collection: str, scope: str, name: str) -> Document:
        found = self._documents.get((collection, scope, name))
        if found is None:
            raise not_found(self.path(collection, scope, name))
        return found

    def shown(self, collection: str, scope: str, name: str, base: str) -> Document:
        known = self.document(collection, scope, name)
        document = {key: value for key, value in known.items() if not key.startswith("_")}
        link = f"{base}/compute/v1/projects/{self._project}"
        document["selfLink"] = f"{base}/compute/v1/{self.path(collection, scope, name)}"
        if "network" in document:
            document["network"] = f"{link}/global/networks/{last_part(document['network'])}"
        if collection == "subnetworks":
            document["region"] = f"{link}/{scope}"
            document["gatewayAddress"] = str(IPv4Network(document["ipCidrRange"])[1])
        if collection == "networks":
            document["subnetworks"] = [
                f"{base}/compute/v1/{self.path(kind, where, known)}"
                for (kind, where, known), subnet in self._documents.items()
                if kind == "subnetworks" and last_part(subnet["network"]) == name
            ]
        return document

    def listed(self, collection: str, scope: str, base: str) -> list[Document]:
        names = [name for kind, where, name in self._documents if (kind, where) == (collection, scope)]
        return [self.shown(collection, scope, name, base) for name in names]

    def patch(self, collection: str, scope: str, name: str, document: Document) -> str:
        known = self.document(collection, scope, name)
        known.update({key: value for key, value in document.items() if key not in ("id", "name", "kind")})
        return str(known["id"])

    def delete(self, collection: str, scope: str, name: str) -> str:
        """The numeric id of what was deleted; a network with subnetworks of its own is still in use (400)."""
        resource_id = str(self.document(collection, scope, name)["id"])
        if collection == "networks":
            users = [
                (kind, where, known)
                for (kind, where, known), document in self._documents.items()
                if last_part(document.get("network", "")) == name
            ]
            if any(not self._documents[user].get("_auto") for user in users):
                path = self.path(collection, scope, name)
                message = f"The network resource '{path}' is already being used"
                raise GoogleError(400, message, "resourceInUseByAnotherResource")
            for user in users:
                del self._documents[user]
        del self._documents[collection, scope, name]
        return resource_id

    def attach(self, network: str, subnetwork: str, region: str, base: str) -> Document:
        """A network interface with the next free address of its subnetwork."""
        scope = f"regions/{region}"
        name = last_part(subnetwork) or last_part(network) or "default"
        subnet = self.document("subnetworks", scope, name)
        given = self._addresses_given.get((scope, name), 1) + 1
        block = IPv4Network(subnet["ipCidrRange"])
        if given >= block.num_addresses - 1:
            raise GoogleError(400, f"IP space of '{self.path('subnetworks', scope, name)}' is exhausted.")
        self._addresses_given[scope, name] = given
        link = f"{base}/compute/v1/projects/{self._project}"
        return {
            "kind": "compute#networkInterface",
            "name": "nic0",
            "network": f"{link}/global/networks/{last_part(subnet['network'])}",
            "subnetwork": f"{link}/{scope}/subnetworks/{name}",
            "networkIP": str(block[given]),
            "stackType": "IPV4_ONLY",
        }

    def path(self, collection: str, scope: str, name: str) -> str:
        return f"projects/{self._project}/{scope}/{collection}/{name}"

    def _create_subnetworks(self, network: str) -> None:
        for region in self._regions:
            document = {"name": network, "network": network, "ipCidrRange": DEFAULT_CIDRS[region]}
            self.insert("subnetworks", f"regions/{region}", document)
            self._documents["subnetworks", f"regions/{region}", network]["_auto"] = True

    @staticmethod
    def _check_range(body: _Subnetwork) -> None:
        try:
            IPv4Network(body.ip_cidr_range)
        except ValueError:
            message = f"Invalid value for field 'resource.ipCidrRange': '{body.ip_cidr_range}'."
            raise GoogleError(400, message) from None


def last_part(link: str) -> str:
    """The name at the end of a full or partial resource link."""
    return re.sub(r"^.*/", "", link)
