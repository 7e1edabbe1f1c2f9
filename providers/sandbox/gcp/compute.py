"""Compute Engine's v1 routes over the sandbox's instances, networks and operations."""

import json
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from providers.sandbox.cloud import Faults
from providers.sandbox.gcp.catalog import MACHINE_TYPES, ZONES, MachineType
from providers.sandbox.gcp.instances import Instances
from providers.sandbox.gcp.networks import KINDS, Networks
from providers.sandbox.gcp.operations import Operations
from providers.sandbox.gcp.wire import Document, GoogleError, not_found, page
from providers.sandbox.machines import Machines

_VCPU_QUOTA = 64
_QUOTA_METRICS = {"CPUS": "e2", "N2_CPUS": "n2", "C3_CPUS": "c3"}
_IMAGE_PROJECTS = ("debian-cloud", "ubuntu-os-cloud", "cos-cloud", "rocky-linux-cloud")


class Compute:
    """Handlers; every one runs on the event loop, so that none sees another's half-done work."""

    def __init__(
        self,
        project: str,
        regions: tuple[str, ...],
        instances: Instances,
        networks: Networks,
        operations: Operations,
        machines: Machines,
        faults: Faults,
    ) -> None:
        self._project, self._regions, self._instances, self._networks = project, regions, instances, networks
        self._operations, self._machines, self._faults = operations, machines, faults

    def routes(self) -> list[Route]:
        root = "/compute/v1/projects/{project}"
        zone, region = root + "/zones/{zone}", root + "/regions/{region}"
        routes = [
            Route(root + "/global/images/family/{family}", self._image),
            Route(root + "/zones", self._zones),
            Route(zone, self._zone_one),
            Route(root + "/regions", self._regions_list),
            Route(region, self._region_one),
            Route(zone + "/machineTypes", self._machine_types),
            Route(zone + "/machineTypes/{name}", self._machine_type),
            Route(root + "/aggregated/machineTypes", self._aggregated_machine_types),
            Route(root + "/aggregated/instances", self._aggregated_instances),
            Route(zone + "/instances", self._instances_of_zone, methods=["GET", "POST"]),
            Route(zone + "/instances/{name}", self._instance, methods=["GET", "DELETE"]),
            Route(zone + "/instances/{name}/{verb}", self._instance_change, methods=["POST"]),
        ]
        for scope in (root + "/global", region, zone):
            routes.append(Route(scope + "/operations/{name}", self._operation))
            routes.append(Route(scope + "/operations/{name}/wait", self._operation, methods=["POST"]))
        for scope in (root + "/global", region):
            routes.append(Route(scope + "/{collection}", self._network_collection, methods=["GET", "POST"]))
            methods = ["GET", "DELETE", "PATCH", "PUT"]
            routes.append(Route(scope + "/{collection}/{name}", self._network_resource, methods=methods))
        return routes

    # -- places and machine types ---------------------------------------------------------------------------------

    async def _zones(self, request: Request) -> Response:
        self._own_project(request)
        names = [zone for region in self._regions for zone in ZONES[region]]
        return self._list(request, "compute#zoneList", [self._zone_document(zone, request) for zone in names])

    async def _zone_one(self, request: Request) -> Response:
        return JSONResponse(self._zone_document(self._zone(request), request))

    async def _regions_list(self, request: Request) -> Response:
        self._own_project(request)
        documents = [self._region_document(region, request) for region in self._regions]
        return self._list(request, "compute#regionList", documents)

    async def _region_one(self, request: Request) -> Response:
        return JSONResponse(self._region_document(self._region(request), request))

    async def _machine_types(self, request: Request) -> Response:
        zone = self._zone(request)
        documents = [self._type_document(found, zone, request) for found in MACHINE_TYPES.values()]
        return self._list(request, "compute#machineTypeList", documents)

    async def _machine_type(self, request: Request) -> Response:
        zone, name = self._zone(request), request.path_params["name"]
        if name not in MACHINE_TYPES:
            raise not_found(f"projects/{self._project}/zones/{zone}/machineTypes/{name}")
        return JSONResponse(self._type_document(MACHINE_TYPES[name], zone, request))

    async def _aggregated_machine_types(self, request: Request) -> Response:
        self._own_project(request)
        rows = [
            (zone, self._type_document(found, zone, request))
            for region in self._regions
            for zone in ZONES[region]
            for found in MACHINE_TYPES.values()
        ]
        return self._aggregated(request, "compute#machineTypeAggregatedList", "machineTypes", rows)

    async def _image(self, request: Request) -> Response:
        project, family = request.path_params["project"], request.path_params["family"]
        if project not in _IMAGE_PROJECTS:
            raise not_found(f"projects/{project}/global/images/family/{family}")
        name = f"{family}-v20261101"
        link = f"{_base(request)}/compute/v1/projects/{project}/global/images/{name}"
        document = {"kind": "compute#image", "name": name, "family": family, "status": "READY", "selfLink": link}
        return JSONResponse({**document, "id": "1", "diskSizeGb": "10", "archiveSizeBytes": "1", "sourceType": "RAW"})

    # -- instances ------------------------------------------------------------------------------------------------

    async def _aggregated_instances(self, request: Request) -> Response:
        self._own_project(request)
        zones = [zone for region in self._regions for zone in ZONES[region]]
        rows = [(zone, found) for zone in zones for found in self._instances.listed(zone, _base(request))]
        return self._aggregated(request, "compute#instanceAggregatedList", "instances", rows)

    async def _instances_of_zone(self, request: Request) -> Response:
        zone = self._zone(request)
        if request.method == "GET":
            return self._list(request, "compute#instanceList", self._instances.listed(zone, _base(request)))
        base, request_id = _base(request), request.query_params.get("requestId")
        repeated = self._operations.repeated(request_id, base)
        if repeated:
            return JSONResponse(repeated)
        document = await _json(request)
        instance_id, failure = self._instances.insert(zone, document, base)
        operation = self._operations.begin(
            "insert",
            scope=f"zones/{zone}",
            target_link=f"{base}/compute/v1/{self._instances.path(zone, document['name'])}",
            target_id=instance_id,
            base=base,
            request_id=request_id,
            failure=failure,
        )
        return JSONResponse(operation)

    async def _instance(self, request: Request) -> Response:
        zone, name = self._zone(request), request.path_params["name"]
        if request.method == "GET":
            return JSONResponse(self._instances.get(zone, name, _base(request)))
        repeated = self._operations.repeated(request.query_params.get("requestId"), _base(request))
        if repeated:
            return JSONResponse(repeated)
        instance_id = self._instances.delete(zone, name)
        return self._changed(request, "delete", f"zones/{zone}", self._instances.path(zone, name), instance_id)

    async def _instance_change(self, request: Request) -> Response:
        zone, name, verb = self._zone(request), request.path_params["name"], request.path_params["verb"]
        changes = {"setLabels": self._instances.set_labels, "setMetadata": self._instances.set_metadata}
        if verb not in changes:
            raise not_found(f"{self._instances.path(zone, name)}/{verb}")
        instance_id = changes[verb](zone, name, await _json(request))
        return self._changed(request, verb, f"zones/{zone}", self._instances.path(zone, name), instance_id)

    # -- networks, subnetworks, firewalls -------------------------------------------------------------------------

    async def _network_collection(self, request: Request) -> Response:
        collection, scope = self._collection(request)
        if request.method == "GET":
            documents = self._networks.listed(collection, scope, _base(request))
            return self._list(request, f"{KINDS[collection]}List", documents)
        repeated = self._operations.repeated(request.query_params.get("requestId"), _base(request))
        if repeated:
            return JSONResponse(repeated)
        document = await _json(request)
        resource_id = self._networks.insert(collection, scope, document)
        path = self._networks.path(collection, scope, document["name"])
        return self._changed(request, "insert", scope, path, resource_id)

    async def _network_resource(self, request: Request) -> Response:
        collection, scope = self._collection(request)
        name = request.path_params["name"]
        path = self._networks.path(collection, scope, name)
        if request.method == "GET":
            return JSONResponse(self._networks.shown(collection, scope, name, _base(request)))
        if request.method == "DELETE":
            return self._changed(request, "delete", scope, path, self._networks.delete(collection, scope, name))
        resource_id = self._networks.patch(collection, scope, name, await _json(request))
        return self._changed(request, "patch", scope, path, resource_id)

    async def _operation(self, request: Request) -> Response:
        self._own_project(request)
        return JSONResponse(self._operations.read(_scope(request), request.path_params["name"], _base(request)))

    # -- shared ---------------------------------------------------------------------------------------------------

    def _changed(self, request: Request, kind: str, scope: str, path: str, resource_id: str) -> Response:
        base = _base(request)
        operation = self._operations.begin(
            kind,
            scope=scope,
            target_link=f"{base}/compute/v1/{path}",
            target_id=resource_id,
            base=base,
            request_id=request.query_params.get("requestId"),
        )
        return JSONResponse(operation)

    def _own_project(self, request: Request) -> None:
        project = request.path_params["project"]
        if project != self._project:
            raise not_found(f"projects/{project}")

    def _zone(self, request: Request) -> str:
        self._own_project(request)
        zone: str = request.path_params["zone"]
        if not any(zone in ZONES[region] for region in self._regions):
            raise not_found(f"projects/{self._project}/zones/{zone}")
        return zone

    def _region(self, request: Request) -> str:
        self._own_project(request)
        region: str = request.path_params["region"]
        if region not in self._regions:
            raise not_found(f"projects/{self._project}/regions/{region}")
        return region

    def _collection(self, request: Request) -> tuple[str, str]:
        self._own_project(request)
        collection, scope = request.path_params["collection"], _scope(request)
        if scope != "global":
            self._region(request)
        if collection not in KINDS or (collection == "subnetworks") == (scope == "global"):
            raise GoogleError(404, f"The requested URL {request.url.path} was not found on this server.")
        return collection, scope

    def _list(self, request: Request, kind: str, documents: Sequence[Document]) -> Response:
        items, token = page(request, documents)
        answer: Document = {"kind": kind, "items": list(items), "selfLink": str(request.url)}
        return JSONResponse({**answer, "nextPageToken": token} if token else answer)

    def _aggregated(self, request: Request, kind: str, what: str, rows: Sequence[tuple[str, Document]]) -> Response:
        items, token = page(request, [document for _, document in rows])
        shown = {id(document) for document in items}
        zones: Document = {}
        for zone in dict.fromkeys(zone for zone, _ in rows):
            found = [document for where, document in rows if where == zone and id(document) in shown]
            if found:
                zones[f"zones/{zone}"] = {what: found}
        answer: Document = {"kind": kind, "items": zones, "selfLink": str(request.url)}
        return JSONResponse({**answer, "nextPageToken": token} if token else answer)

    def _zone_document(self, zone: str, request: Request) -> Document:
        link = f"{_base(request)}/compute/v1/projects/{self._project}"
        region = zone.rpartition("-")[0]
        document = {"kind": "compute#zone", "id": _number_of(zone), "name": zone, "description": zone, "status": "UP"}
        return {**document, "region": f"{link}/regions/{region}", "selfLink": f"{link}/zones/{zone}"}

    def _region_document(self, region: str, request: Request) -> Document:
        """With its quotas; while the no-capacity fault is on, everything that is allowed is used."""
        link = f"{_base(request)}/compute/v1/projects/{self._project}"
        live = [machine for machine in self._machines.live() if machine.region == region]
        quotas = []
        for metric, family in _QUOTA_METRICS.items():
            used = sum(MACHINE_TYPES[m.instance_type].vcpus for m in live if m.instance_type.startswith(family))
            usage = _VCPU_QUOTA if self._faults.no_capacity else used
            quotas.append({"metric": metric, "limit": _VCPU_QUOTA, "usage": usage})
        return {
            "kind": "compute#region",
            "id": _number_of(region),
            "name": region,
            "description": region,
            "status": "UP",
            "zones": [f"{link}/zones/{zone}" for zone in ZONES[region]],
            "quotas": quotas,
            "selfLink": f"{link}/regions/{region}",
        }

    def _type_document(self, machine_type: MachineType, zone: str, request: Request) -> Document:
        link = f"{_base(request)}/compute/v1/projects/{self._project}/zones/{zone}"
        return {
            "kind": "compute#machineType",
            "id": _number_of(machine_type.name),
            "name": machine_type.name,
            "description": f"{machine_type.vcpus} vCPUs, {machine_type.memory_mib / 1024:g} GB RAM",
            "guestCpus": machine_type.vcpus,
            "memoryMb": machine_type.memory_mib,
            "maximumPersistentDisks": 128,
            "maximumPersistentDisksSizeGb": "263168",
            "isSharedCpu": machine_type.shared_core,
            "architecture": "X86_64",
            "zone": zone,
            "selfLink": f"{link}/machineTypes/{machine_type.name}",
        }


def _base(request: Request) -> str:
    return str(request.base_url).rstrip("/")


def _scope(request: Request) -> str:
    params: dict[str, Any] = request.path_params
    if "zone" in params:
        return f"zones/{params['zone']}"
    return f"regions/{params['region']}" if "region" in params else "global"


def _number_of(name: str) -> str:
    return str(int.from_bytes(name.encode()[:7], "big"))


async def _json(request: Request) -> Document:
    try:
        document = json.loads(await request.body())
    except ValueError:
        raise GoogleError(400, "Parse Error", "parseError") from None
    if not isinstance(document, dict):
        raise GoogleError(400, "Invalid JSON payload received: an object was expected.", "parseError")
    return document
