"""Azure Resource Manager's routes of the sandbox: one door, the path says which resource is meant, in any case."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from engine.clock import Clock
from providers.sandbox.azure.billing import Invoices
from providers.sandbox.azure.graph import resources
from providers.sandbox.azure.network import KINDS, NETWORK, Network
from providers.sandbox.azure.retail import resource_skus, usages
from providers.sandbox.azure.vms import VirtualMachines
from providers.sandbox.azure.wire import ArmError, Document, id_key
from providers.sandbox.cloud import Faults
from providers.sandbox.machines import Machines
from providers.sandbox.prices import PriceBoard

OPERATION_TIME = timedelta(milliseconds=50)


class Arm:
    """Every handler runs on the event loop, so that none sees another's half-done work."""

    def __init__(
        self,
        subscription: str,
        regions: tuple[str, ...],
        network: Network,
        vms: VirtualMachines,
        machines: Machines,
        board: PriceBoard,
        faults: Faults,
        invoices: Invoices,
        resource_ids: dict[str, str],
        clock: Clock,
    ) -> None:
        self._subscription, self._regions = subscription, regions
        self._network, self._vms, self._machines, self._board = network, vms, machines, board
        self._faults, self._invoices, self._resource_ids, self._clock = faults, invoices, resource_ids, clock
        self._groups: dict[str, Document] = {}
        self._operations: dict[str, tuple[datetime, str]] = {}

    async def answer(self, request: Request) -> Response:
        if "api-version" not in request.query_params:
            message = "The api-version query parameter (?api-version=) is required for all requests."
            raise ArmError(400, "MissingApiVersionParameter", message)
        parts = [part for part in request.url.path.split("/") if part]
        match [part.lower() for part in parts]:
            case ["subscriptions", subscription, *rest]:
                if subscription != self._subscription.lower():
                    raise ArmError(404, "SubscriptionNotFound", f"The subscription '{parts[1]}' could not be found.")
                return await self._subscription_door(request, parts, rest)
            case ["providers", "microsoft.resourcegraph", "resources"]:
                page = resources(await _json(request), self._board, self._regions, self._clock)
                return JSONResponse(page)
            case [
                "providers",
                "microsoft.billing",
                "billingaccounts",
                "default",
                "billingsubscriptions",
                _,
                "invoices",
            ]:
                return JSONResponse({"value": self._invoices.listed(*_span(request))})
        raise _no_such_path(request)

    async def _subscription_door(self, request: Request, parts: list[str], rest: list[str]) -> Response:
        base = f"/subscriptions/{self._subscription}"
        match rest:
            case []:
                name = {"displayName": "shardwright-sandbox", "state": "Enabled"}
                return JSONResponse({"id": base, "subscriptionId": self._subscription, **name})
            case ["resourcegroups", *within]:
                return await self._group_door(request, parts[2:], within)
            case ["providers", "microsoft.network", kind] if kind in KINDS:
                return _listed(self._network.listed(base, KINDS[kind]))
            case ["providers", "microsoft.compute", *what]:
                return self._compute(request, base, what)
            case ["providers", "microsoft.costmanagement", *what]:
                return await self._cost_details(request, what)
            case ["operationresults", operation]:
                return Response(status_code=200 if self._done(operation) else 202, headers=self._poll(request))
        raise _no_such_path(request)

    def _compute(self, request: Request, base: str, what: list[str]) -> Response:
        match what:
            case ["virtualmachines"]:
                status_only = request.query_params.get("statusOnly", "").lower() == "true"
                return _listed(self._vms.statuses(base) if status_only else self._vms.listed(base))
            case ["skus"]:
                wanted = request.query_params.get("$filter", "")
                rows = resource_skus(self._regions)
                return _listed([row for row in rows if not wanted or f"'{row['locations'][0]}'" in wanted])
            case ["locations", region, "usages"] if region in self._regions:
                return _listed(usages(region, self._machines, exhausted=self._faults.no_capacity))
            case ["locations", _, "operations", operation]:
                begun, _ = self._operation(operation)
                done = self._done(operation)
                answer = {"name": operation, "startTime": begun.isoformat()}
                if done:
                    answer["endTime"] = (begun + OPERATION_TIME).isoformat()
                status = "Succeeded" if done else "InProgress"
                return JSONResponse({**answer, "status": status}, headers=None if done else self._poll(request))
        raise _no_such_path(request)

    # -- resource groups ------------------------------------------------------------------------------------------

    async def _group_door(self, request: Request, parts: list[str], within: list[str]) -> Response:
        match within:
            case []:
                return _listed(list(self._groups.values()))
            case [_]:
                return await self._group(request, parts[1])
            case [group, "providers", namespace, kind, *names]:
                if group not in self._groups:
                    raise _no_such_group(parts[1])
                group_id = self._groups[group]["id"]
                if namespace == "microsoft.network":
                    return await self._network_resource(request, group_id, kind, parts[5:])
                if (namespace, kind) == ("microsoft.compute", "virtualmachines"):
                    return await self._vm(request, group_id, parts[5:], names)
        raise _no_such_path(request)

    async def _group(self, request: Request, name: str) -> Response:
        key = name.lower()
        if request.method in ("PUT", "PATCH"):
            body = await _json(request)
            known = self._groups.get(key)
            location = str(body.get("location", (known and known["location"]) or "")).replace(" ", "").lower()
            if location not in self._regions:
                raise ArmError(
                    400, "LocationNotAvailableForResourceGroup", f"The location '{location}' is not available."
                )
            self._groups[key] = {
                "id": f"/subscriptions/{self._subscription}/resourceGroups/{known['name'] if known else name}",
                "name": known["name"] if known else name,
                "type": "Microsoft.Resources/resourceGroups",
                "location": location,
                "tags": body.get("tags", {}),
                "properties": {"provisioningState": "Succeeded"},
            }
            return JSONResponse(self._groups[key], status_code=200 if known else 201)
        if key not in self._groups:
            raise _no_such_group(name)
        if request.method == "DELETE":
            group_id = self._groups.pop(key)["id"]
            self._vms.drop_group(group_id)
            self._network.drop_group(group_id)
            operation = self._begin("delete")
            path = f"/subscriptions/{self._subscription}/operationresults/{operation}"
            return Response(status_code=202, headers={"Location": _link(request, path), "Retry-After": "1"})
        return Response(status_code=204) if request.method == "HEAD" else JSONResponse(self._groups[key])

    # -- network --------------------------------------------------------------------------------------------------

    async def _network_resource(self, request: Request, group_id: str, kind: str, names: Sequence[str]) -> Response:
        if kind not in KINDS:
            raise _no_such_path(request)
        root = f"{group_id}/providers/{NETWORK}/{KINDS[kind]}"
        match names:
            case []:
                return _listed(self._network.listed(group_id, KINDS[kind]))
            case [name]:
                resource_id, subnet = f"{root}/{name}", False
            case [name, child] if child.lower() == "subnets":
                self._network.get(f"{root}/{name}")
                return _listed(self._network.listed(f"{root}/{name}", "virtualNetworks/subnets"))
            case [name, child, subnet_name] if child.lower() == "subnets":
                resource_id, subnet = f"{root}/{name}/subnets/{subnet_name}", True
            case _:
                raise _no_such_path(request)
        if request.method == "GET":
            return JSONResponse(self._network.get(resource_id))
        if request.method == "DELETE":
            return Response(status_code=200 if self._network.delete(resource_id) else 204)
        body = await _json(request)
        if subnet:
            document, is_new = self._network.put_subnet(resource_id, body)
        else:
            document, is_new = self._network.put(resource_id, KINDS[kind], body)
        return JSONResponse(document, status_code=201 if is_new else 200)

    # -- virtual machines -----------------------------------------------------------------------------------------

    async def _vm(self, request: Request, group_id: str, names: list[str], lowered: list[str]) -> Response:
        if not names:
            return _listed(self._vms.listed(group_id))
        resource_id = f"{group_id}/providers/Microsoft.Compute/virtualMachines/{names[0]}"
        match (request.method, *lowered[1:]):
            case ("PUT",):
                document, is_new = self._vms.put(resource_id, await _json(request), self._regions)
                self._resource_ids[document["properties"]["vmId"]] = resource_id
                headers = self._async_headers(request, document["location"]) if is_new else None
                return JSONResponse(document, status_code=201 if is_new else 200, headers=headers)
            case ("PATCH",):
                return JSONResponse(self._vms.patch(resource_id, await _json(request)))
            case ("GET",):
                return JSONResponse(self._vms.get(resource_id, request.query_params.get("$expand", "")))
            case ("GET", "instanceview"):
                return JSONResponse(self._vms.instance_view(resource_id))
            case ("POST", "simulateeviction"):
                self._vms.evict(resource_id)
                return Response(status_code=204)
            case ("DELETE",):
                if not self._vms.delete(resource_id):
                    return Response(status_code=204)
                region = self._groups[id_key(group_id).rpartition("/")[2]]["location"]
                headers = self._async_headers(request, region)
                return Response(status_code=202, headers={**headers, "Location": headers["Azure-AsyncOperation"]})
        raise _no_such_path(request)

    def _async_headers(self, request: Request, region: str) -> dict[str, str]:
        operation = self._begin("vm")
        path = (
            f"/subscriptions/{self._subscription}/providers/Microsoft.Compute/locations/{region}/operations/{operation}"
        )
        return {"Azure-AsyncOperation": _link(request, path), "Retry-After": "1"}

    # -- cost details ---------------------------------------------------------------------------------------------

    async def _cost_details(self, request: Request, what: list[str]) -> Response:
        scope = f"/subscriptions/{self._subscription}/providers/Microsoft.CostManagement"
        match what:
            case ["generatecostdetailsreport"]:
                report = self._invoices.begin_report(await _json(request))
                link = _link(request, f"{scope}/costDetailsOperationResults/{report}")
                return Response(status_code=202, headers={"Location": link, "Retry-After": "1"})
            case ["costdetailsoperationresults", report]:
                blob = str(request.base_url.replace(path=f"/costdetails/{report}.csv", query=f"sig={uuid4().hex}"))
                return JSONResponse(self._invoices.manifest(report, blob, {"requestScope": scope}))
        raise _no_such_path(request)

    # -- operations -----------------------------------------------------------------------------------------------

    def _begin(self, kind: str) -> str:
        operation = str(uuid4())
        self._operations[operation] = (self._clock.now(), kind)
        return operation

    def _operation(self, operation: str) -> tuple[datetime, str]:
        if operation not in self._operations:
            raise ArmError(404, "OperationNotFound", f"The operation '{operation}' was not found.")
        return self._operations[operation]

    def _done(self, operation: str) -> bool:
        return self._clock.now() - self._operation(operation)[0] >= OPERATION_TIME

    @staticmethod
    def _poll(request: Request) -> dict[str, str]:
        return {"Retry-After": "1", "Location": str(request.url)}


def _listed(documents: Sequence[Document]) -> Response:
    return JSONResponse({"value": list(documents)})


def _link(request: Request, path: str) -> str:
    version = request.query_params.get("api-version", "")
    return str(request.base_url.replace(path=path, query=f"api-version={version}"))


def _span(request: Request) -> tuple[datetime, datetime]:
    """Whole days; the last one counts."""
    try:
        start, end = (
            datetime.fromisoformat(request.query_params.get(edge, "")).replace(tzinfo=UTC)
            for edge in ("periodStartDate", "periodEndDate")
        )
    except ValueError:
        raise ArmError(400, "BadRequest", "periodStartDate and periodEndDate are needed as YYYY-MM-DD.") from None
    return start, end + timedelta(days=1)


def _no_such_path(request: Request) -> ArmError:
    return ArmError(404, "InvalidResourceType", f"No resource answers {request.method} {request.url.path}.")


def _no_such_group(name: str) -> ArmError:
    return ArmError(404, "ResourceGroupNotFound", f"Resource group '{name}' could not be found.")


async def _json(request: Request) -> Document:
    try:
        document = json.loads(await request.body())
    except ValueError:
        raise ArmError(400, "InvalidRequestContent", "The request content was invalid and could not be read.") from None
    if not isinstance(document, dict):
        raise ArmError(400, "InvalidRequestContent", "The request content has to be an object.")
    return document
