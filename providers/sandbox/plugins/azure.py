"""The stand-in for Pulumi's azure-native plugin: Azure Resource Manager at ``https://METADATA_HOST``.

The real plugin asks that host where Resource Manager and the login are; here they are one server. Its certificate is
checked against SSL_CERT_FILE, as the real plugin does.
"""

import ssl
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, ClassVar

import httpx

from engine.clock import Clock, wait_until
from engine.errors import (
    AuthenticationFailed,
    ConfigurationError,
    InsufficientCapacity,
    ProviderError,
    ProviderUnavailable,
)
from providers.plugin.kinds import Invoke, Made, ResourceKind
from providers.plugin.values import Plain, Properties
from providers.sandbox.plugins.http import Document, JsonApi, document_of

_OPERATION_SECONDS = 60.0
_COMPUTE, _NETWORK, _GROUPS = "2026-04-01", "2026-03-01", "2025-04-01"
_CAPACITY = ("SkuNotAvailable", "AllocationFailed", "OverconstrainedAllocationRequest", "ZonalAllocationFailed")
_RENEW_BEFORE = timedelta(minutes=5)


class _Login:
    """Client credentials -> bearer token, renewed before it ends."""

    def __init__(self, base_url: str, configuration: Properties, clock: Clock) -> None:
        self._url = f"{base_url}/{configuration.get('tenantId', 'common')}/oauth2/v2.0/token"
        self._form = {
            "grant_type": "client_credentials",
            "client_id": str(configuration.get("clientId") or ""),
            "client_secret": str(configuration.get("clientSecret") or ""),
            "scope": "https://management.azure.com/.default",
        }
        self._clock, self._token = clock, ""
        self._renew_at: datetime | None = None

    def __call__(self) -> str:
        if self._renew_at is None or self._clock.now() >= self._renew_at:
            self._renew()
        return self._token

    def _renew(self) -> None:
        with httpx.Client(verify=ssl.create_default_context(), timeout=15.0, trust_env=False) as http:
            try:
                answer = http.post(self._url, data=self._form)
            except httpx.HTTPError as problem:
                raise ProviderUnavailable("azure-native: no login", why=type(problem).__name__) from problem
        if answer.is_error:
            raise AuthenticationFailed("azure-native: the login was refused", why=answer.text[:300])
        document = document_of(answer)
        self._token = str(document["access_token"])
        lifetime = timedelta(seconds=int(document["expires_in"]))
        self._renew_at = self._clock.now() + max(lifetime - _RENEW_BEFORE, lifetime / 2)


class Session:
    def __init__(self, configuration: Properties) -> None:
        host = configuration.get("metadataHost")
        if not host:
            raise ConfigurationError("the stand-in for azure-native needs metadataHost", why="it serves a sandbox only")
        self.subscription = str(configuration["subscriptionId"])
        base_url, tls = f"https://{host}", ssl.create_default_context()
        self.api = JsonApi("azure-native", base_url, lambda: self._login(), verify=tls)
        self._login = _Login(base_url, configuration, self.api.clock)

    def run(self, method: str, path: str, version: str, body: Document | None = None) -> Document | None:
        """Send, and wait for a long-running operation. None for 404 and 204."""
        answer = self.api.call(method, path, body=body, params={"api-version": version})
        if answer.status_code in (httpx.codes.NOT_FOUND, httpx.codes.NO_CONTENT):
            return None
        if answer.is_error:
            error = document_of(answer).get("error", {})
            code = str(error.get("code", ""))
            kind = InsufficientCapacity if code in _CAPACITY else ProviderError
            raise kind(f"azure: {method} {path.rpartition('/')[2]}: {code}", why=str(error.get("message", "")))
        follow = answer.headers.get("Azure-AsyncOperation") or (
            answer.headers.get("Location") if answer.status_code == httpx.codes.ACCEPTED else None
        )
        if follow:
            self._wait(follow)
        if method == "DELETE":
            return None
        return self.run("GET", path, version) if follow else document_of(answer)

    def _wait(self, url: str) -> None:
        link = httpx.URL(url)
        path, params = link.path, dict(link.params)

        def done() -> bool:
            answer = self.api.call("GET", path, params=params)
            if answer.status_code == httpx.codes.ACCEPTED or not answer.content:
                return answer.status_code != httpx.codes.ACCEPTED
            status = document_of(answer).get("status", "Succeeded")
            if status in ("Failed", "Canceled"):
                raise ProviderError(f"azure: the operation {status.lower()}", why=answer.text[:300])
            return bool(status == "Succeeded")

        if not wait_until(done, self.api.clock, timeout_seconds=_OPERATION_SECONDS):
            raise ProviderUnavailable(f"azure: an operation is not done after {_OPERATION_SECONDS:g} s")


def connect(configuration: Properties) -> Session:
    return Session(configuration)


class _Kind(ResourceKind[Session]):
    """A resource whose path follows from its inputs, so that every create is a PUT that may be repeated."""

    path: ClassVar[str]
    version: ClassVar[str]
    path_inputs: ClassVar[frozenset[str]]
    computed: ClassVar[tuple[str, ...]] = ("provisioningState", "etag")
    delete_before_replace = True
    nested: ClassVar[frozenset[str]] = frozenset()
    """Lists whose items the API wants as {id, name, properties}; Pulumi has them flat."""

    def create(self, session: Session, name: str, inputs: Properties) -> Made:
        resource_id = f"/subscriptions/{session.subscription}{self.path.format(**inputs)}"
        return Made(resource_id, self._put(session, resource_id, inputs))

    def read(self, session: Session, resource_id: str, inputs: Properties) -> Made | None:
        shown = session.run("GET", resource_id, self.version)
        return None if shown is None else Made(resource_id, self._outputs(inputs, shown))

    def update(self, session: Session, resource_id: str, old: Properties, new: Properties) -> Properties:
        return self._put(session, resource_id, new)

    def delete(self, session: Session, resource_id: str, properties: Properties) -> None:
        session.run("DELETE", resource_id, self.version)

    def observed(self, inputs: Properties, outputs: Properties) -> dict[str, Plain]:
        return {**inputs, "tags": outputs.get("seenTags") or {}} if "tags" in inputs else dict(inputs)

    def _put(self, session: Session, resource_id: str, inputs: Properties) -> Properties:
        shown = session.run("PUT", resource_id, self.version, self._body(inputs))
        if shown is None:
            raise ProviderError(f"azure: {resource_id} was put, but is not there")
        return self._outputs(inputs, shown)

    def _body(self, inputs: Properties) -> dict[str, Any]:
        top = {key: inputs[key] for key in ("location", "tags", "zones", "sku") if inputs.get(key) is not None}
        rest = {k: v for k, v in inputs.items() if k not in top and k not in self.path_inputs and v is not None}
        return {**top, "properties": self._deep(rest)}

    def _deep(self, value: Plain) -> Plain:
        if isinstance(value, list):
            return [self._deep(item) for item in value]
        if not isinstance(value, Mapping):
            return value
        return {
            key: [_split(self._deep(each)) for each in item] if key in self.nested else self._deep(item)
            for key, item in value.items()
        }

    def _outputs(self, inputs: Properties, shown: Document) -> dict[str, Plain]:
        properties = shown.get("properties") or {}
        found = {"name": shown.get("name"), "type": shown.get("type"), "seenTags": shown.get("tags") or {}}
        return {**found, "etag": shown.get("etag", ""), "provisioningState": properties.get("provisioningState", "")}


def _split(item: Mapping[str, Any]) -> dict[str, Any]:
    outside = {key: value for key, value in item.items() if key in ("id", "name")}
    inside = {key: value for key, value in item.items() if key not in outside}
    return {**outside, "properties": inside}


class _GroupKind(_Kind):
    path, version = "/resourceGroups/{resourceGroupName}", _GROUPS
    path_inputs = replace_on = frozenset({"resourceGroupName", "location"})

    def _body(self, inputs: Properties) -> dict[str, Any]:
        return {"location": inputs["location"], "tags": inputs.get("tags") or {}}


_IN_GROUP = "/resourceGroups/{resourceGroupName}/providers/"


class _VirtualNetworkKind(_Kind):
    path, version = _IN_GROUP + "Microsoft.Network/virtualNetworks/{virtualNetworkName}", _NETWORK
    path_inputs = frozenset({"resourceGroupName", "virtualNetworkName"})
    replace_on = path_inputs | {"location"}


class _SubnetKind(_Kind):
    path = _IN_GROUP + "Microsoft.Network/virtualNetworks/{virtualNetworkName}/subnets/{subnetName}"
    version = _NETWORK
    path_inputs = replace_on = frozenset({"resourceGroupName", "virtualNetworkName", "subnetName"})


class _SecurityGroupKind(_Kind):
    path, version = _IN_GROUP + "Microsoft.Network/networkSecurityGroups/{networkSecurityGroupName}", _NETWORK
    path_inputs = frozenset({"resourceGroupName", "networkSecurityGroupName"})
    replace_on = path_inputs | {"location"}
    nested = frozenset({"securityRules"})


class _AddressKind(_Kind):
    path, version = _IN_GROUP + "Microsoft.Network/publicIPAddresses/{publicIpAddressName}", _NETWORK
    path_inputs = frozenset({"resourceGroupName", "publicIpAddressName"})
    replace_on = path_inputs | {"location"}


class _InterfaceKind(_Kind):
    path, version = _IN_GROUP + "Microsoft.Network/networkInterfaces/{networkInterfaceName}", _NETWORK
    path_inputs = frozenset({"resourceGroupName", "networkInterfaceName"})
    replace_on = path_inputs | {"location"}
    nested = frozenset({"ipConfigurations"})

    def _outputs(self, inputs: Properties, shown: Document) -> dict[str, Plain]:
        seen = {c["name"]: c["properties"] for c in (shown.get("properties") or {}).get("ipConfigurations", [])}
        configurations = [
            {**asked, "privateIPAddress": seen.get(asked["name"], {}).get("privateIPAddress")}
            for asked in inputs.get("ipConfigurations") or []
        ]
        return {**super()._outputs(inputs, shown), "ipConfigurations": configurations}


class _MachineKind(_Kind):
    path, version = _IN_GROUP + "Microsoft.Compute/virtualMachines/{vmName}", _COMPUTE
    path_inputs = frozenset({"resourceGroupName", "vmName"})
    computed = ("provisioningState", "etag", "vmId")
    replace_on = path_inputs | {
        "location",
        "zones",
        "priority",
        "hardwareProfile",
        "networkProfile",
        "osProfile",
        "storageProfile",
    }
    nested = frozenset({"networkInterfaces"})

    def _outputs(self, inputs: Properties, shown: Document) -> dict[str, Plain]:
        return {**super()._outputs(inputs, shown), "vmId": (shown.get("properties") or {}).get("vmId", "")}


KINDS: dict[str, ResourceKind[Any]] = {
    "azure-native:resources:ResourceGroup": _GroupKind(),
    "azure-native:network:VirtualNetwork": _VirtualNetworkKind(),
    "azure-native:network:Subnet": _SubnetKind(),
    "azure-native:network:NetworkSecurityGroup": _SecurityGroupKind(),
    "azure-native:network:PublicIPAddress": _AddressKind(),
    "azure-native:network:NetworkInterface": _InterfaceKind(),
    "azure-native:compute:VirtualMachine": _MachineKind(),
}
INVOKES: dict[str, Invoke] = {}
