"""The stand-in for Pulumi's gcp plugin: Compute Engine's REST API at the configured custom endpoint."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, ClassVar
from uuid import UUID, uuid4

import httpx
from google.auth import load_credentials_from_dict
from google.auth.transport.requests import Request

from engine.clock import wait_until
from engine.errors import ConfigurationError, InsufficientCapacity, ProviderError, ProviderUnavailable
from providers.plugin.kinds import Invoke, Made, ResourceKind
from providers.plugin.values import Plain, Properties
from providers.sandbox.plugins.http import Document, JsonApi, document_of

_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_OPERATION_SECONDS = 60.0
_CAPACITY = ("ZONE_RESOURCE_POOL_EXHAUSTED", "QUOTA_EXCEEDED", "RESOURCE_POOL_EXHAUSTED")


@dataclass(frozen=True)
class Session:
    api: JsonApi
    project: str


def connect(configuration: Properties) -> Session:
    endpoint = configuration.get("computeCustomEndpoint")
    if not endpoint:
        raise ConfigurationError("the stand-in for gcp needs computeCustomEndpoint", why="it serves a sandbox only")
    return Session(JsonApi("gcp", endpoint, _authorizer(configuration)), configuration["project"])


def _authorizer(configuration: Properties) -> Callable[[], str]:
    if configuration.get("accessToken"):
        return lambda: str(configuration["accessToken"])
    if not configuration.get("credentials"):
        raise ConfigurationError("the gcp provider has neither credentials nor an access token")
    credentials, _ = load_credentials_from_dict(json.loads(configuration["credentials"]), scopes=[_SCOPE])  # type: ignore[no-untyped-call]

    def current() -> str:
        if not credentials.valid:
            credentials.refresh(Request())
        return str(credentials.token)

    return current


def _run(
    session: Session, method: str, path: str, body: Document | None = None, request_id: UUID | None = None
) -> Document | None:
    """Send, and wait for the operation that answers; None for 404."""
    params = {"requestId": str(request_id)} if request_id else None
    answer = session.api.call(method, path, body=body, params=params)
    if answer.status_code == httpx.codes.NOT_FOUND:
        return None
    document = document_of(answer)
    if answer.is_error:
        error = document.get("error", {})
        raise ProviderError(f"gcp: {method} {path}: {answer.status_code}", why=str(error.get("message", "")))
    return _finished(session, document) if document.get("kind") == "compute#operation" else document


def _finished(session: Session, operation: dict[str, Any]) -> Document:
    scope = next((operation[key] for key in ("zone", "region") if operation.get(key)), "")
    where = f"{'/'.join(scope.split('/')[-2:])}" if scope else "global"
    path = f"projects/{session.project}/{where}/operations/{operation['name']}"
    latest = [operation]

    def done() -> bool:
        if latest[0].get("status") != "DONE":
            latest[0] = document_of(session.api.call("GET", path))
        return latest[0].get("status") == "DONE"

    if not wait_until(done, session.api.clock, timeout_seconds=_OPERATION_SECONDS):
        raise ProviderUnavailable(f"gcp: operation {operation['name']} is not done after {_OPERATION_SECONDS:g} s")
    errors = latest[0].get("error", {}).get("errors", [])
    if errors:
        code = errors[0].get("code", "")
        kind = InsufficientCapacity if code in _CAPACITY else ProviderError
        raise kind(f"gcp: {code}", why=str(errors[0].get("message", "")))
    return latest[0]


class _Kind(ResourceKind[Session]):
    """A named resource of one collection; ids are paths from ``projects/`` on, as the real plugin has them."""

    collection: ClassVar[str]
    computed: ClassVar[tuple[str, ...]] = ("selfLink",)

    def body(self, session: Session, inputs: Properties) -> dict[str, Any]:
        raise NotImplementedError

    def scope(self, inputs: Properties) -> str:
        return "global"

    def outputs(self, inputs: Properties, shown: Document) -> dict[str, Plain]:
        return {"selfLink": shown.get("selfLink", "")}

    def create(self, session: Session, name: str, inputs: Properties) -> Made:
        parent = f"projects/{session.project}/{self.scope(inputs)}/{self.collection}"
        # A spent requestId answers with its old operation, even when what that made is long deleted: then a fresh one.
        for request_id in (self.request_id(inputs), uuid4()):
            _run(session, "POST", parent, self.body(session, inputs), request_id)
            made = self.read(session, f"{parent}/{inputs['name']}", inputs)
            if made is not None:
                return made
        raise ProviderError(f"gcp: {name} was created, but is not there")

    def request_id(self, inputs: Properties) -> UUID:
        """One creation, one id: a request sent twice creates once."""
        return uuid4()

    def read(self, session: Session, resource_id: str, inputs: Properties) -> Made | None:
        shown = _run(session, "GET", resource_id)
        return None if shown is None else Made(resource_id, self.outputs(inputs, shown))

    def update(self, session: Session, resource_id: str, old: Properties, new: Properties) -> Properties:
        _run(session, "PATCH", resource_id, self.body(session, new))
        return {}

    def delete(self, session: Session, resource_id: str, properties: Properties) -> None:
        _run(session, "DELETE", resource_id)


class _NetworkKind(_Kind):
    collection, named = "networks", "name"
    replace_on = frozenset({"name", "autoCreateSubnetworks"})

    def body(self, session: Session, inputs: Properties) -> dict[str, Any]:
        return {"name": inputs["name"], "autoCreateSubnetworks": inputs.get("autoCreateSubnetworks", True)}


class _SubnetworkKind(_Kind):
    collection, named = "subnetworks", "name"
    replace_on = frozenset({"name", "network", "region", "ipCidrRange"})

    def scope(self, inputs: Properties) -> str:
        return f"regions/{inputs['region']}"

    def body(self, session: Session, inputs: Properties) -> dict[str, Any]:
        return {
            "name": inputs["name"],
            "network": inputs["network"],
            "ipCidrRange": inputs["ipCidrRange"],
            "privateIpGoogleAccess": inputs.get("privateIpGoogleAccess", False),
        }


class _FirewallKind(_Kind):
    collection, named = "firewalls", "name"
    replace_on = frozenset({"name", "network", "direction"})

    def body(self, session: Session, inputs: Properties) -> dict[str, Any]:
        return {
            "name": inputs["name"],
            "network": inputs["network"],
            "direction": inputs.get("direction", "INGRESS"),
            "sourceRanges": inputs.get("sourceRanges", []),
            "targetTags": inputs.get("targetTags", []),
            "allowed": [{"IPProtocol": a["protocol"], "ports": a.get("ports", [])} for a in inputs.get("allows", [])],
        }


class _InstanceKind(_Kind):
    collection, named = "instances", "name"
    computed = ("selfLink", "instanceId", "currentStatus")
    replace_on = frozenset(
        {"name", "zone", "machineType", "bootDisk", "networkInterfaces", "scheduling", "metadataStartupScript"}
    )

    def scope(self, inputs: Properties) -> str:
        return f"zones/{inputs['zone']}"

    def request_id(self, inputs: Properties) -> UUID:
        token = (inputs.get("metadata") or {}).get("shardwright-token")
        return UUID(sha256(token.encode()).hexdigest()[:32]) if token else uuid4()

    def body(self, session: Session, inputs: Properties) -> dict[str, Any]:
        disk = inputs["bootDisk"].get("initializeParams", {})
        return {
            "name": inputs["name"],
            "machineType": f"zones/{inputs['zone']}/machineTypes/{inputs['machineType']}",
            "disks": [
                {
                    "boot": True,
                    "autoDelete": inputs["bootDisk"].get("autoDelete", True),
                    "initializeParams": {"sourceImage": disk.get("image"), "diskSizeGb": str(int(disk["size"]))},
                }
            ],
            "networkInterfaces": [
                {
                    "subnetwork": interface["subnetwork"],
                    "accessConfigs": [
                        {"type": "ONE_TO_ONE_NAT", "networkTier": access.get("networkTier", "PREMIUM")}
                        for access in interface.get("accessConfigs") or []
                    ],
                }
                for interface in inputs["networkInterfaces"]
            ],
            "scheduling": inputs.get("scheduling") or {},
            "serviceAccounts": [
                {"email": account.get("email", "default"), "scopes": account["scopes"]}
                for account in [inputs.get("serviceAccount")]
                if account
            ],
            "labels": inputs.get("labels") or {},
            "metadata": {"items": _items(inputs)},
            "tags": {"items": inputs.get("tags") or []},
        }

    def outputs(self, inputs: Properties, shown: Document) -> dict[str, Plain]:
        seen = shown.get("networkInterfaces") or []
        wanted = inputs.get("networkInterfaces") or [{} for _ in seen]
        return {
            "selfLink": shown.get("selfLink", ""),
            "instanceId": str(shown.get("id", "")),
            "currentStatus": shown.get("status", ""),
            "networkInterfaces": [
                {**asked, "networkIp": given.get("networkIP")} for asked, given in zip(wanted, seen, strict=False)
            ],
            "seenLabels": shown.get("labels") or {},
        }

    def observed(self, inputs: Properties, outputs: Properties) -> dict[str, Plain]:
        return {**inputs, "labels": outputs["seenLabels"]} if "labels" in inputs else dict(inputs)

    def update(self, session: Session, resource_id: str, old: Properties, new: Properties) -> Properties:
        shown = _run(session, "GET", resource_id)
        if shown is None:
            raise ProviderError(f"gcp: {resource_id} is gone")
        if old.get("labels") != new.get("labels"):
            labels = {"labels": new.get("labels") or {}, "labelFingerprint": shown.get("labelFingerprint")}
            _run(session, "POST", f"{resource_id}/setLabels", labels)
        if old.get("metadata") != new.get("metadata"):
            fingerprint = shown.get("metadata", {}).get("fingerprint")
            metadata = {"items": _items(new), "fingerprint": fingerprint}
            _run(session, "POST", f"{resource_id}/setMetadata", metadata)
        made = self.read(session, resource_id, new)
        return {} if made is None else made.outputs


def _items(inputs: Properties) -> list[dict[str, str]]:
    script = inputs.get("metadataStartupScript")
    metadata = {**(inputs.get("metadata") or {}), **({"startup-script": script} if script else {})}
    return [{"key": key, "value": value} for key, value in metadata.items()]


KINDS: dict[str, ResourceKind[Any]] = {
    "gcp:compute/network:Network": _NetworkKind(),
    "gcp:compute/subnetwork:Subnetwork": _SubnetworkKind(),
    "gcp:compute/firewall:Firewall": _FirewallKind(),
    "gcp:compute/instance:Instance": _InstanceKind(),
}
INVOKES: dict[str, Invoke] = {}
