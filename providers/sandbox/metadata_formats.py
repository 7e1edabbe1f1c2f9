"""What instance metadata looks like at each kind of provider: one answerer each, pure but for tokens and signatures."""

import json
import secrets
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.utils import format_datetime
from typing import Protocol

from providers.sandbox.contract import NOTICES
from providers.sandbox.nodes import HostedNode
from providers.sandbox.signers import InstanceSigners

_MAX_TOKEN_SECONDS = 21600
_AWS_IDENTITY = frozenset(f"/latest/dynamic/instance-identity/{name}" for name in ("document", "rsa2048"))
_GCP_IDENTITY = "/computeMetadata/v1/instance/service-accounts/default/identity"
_AZURE_NONCE_DIGITS = 10


@dataclass(frozen=True)
class Question:
    """One request; header names are lower-case, the path has no query."""

    method: str
    path: str
    headers: Mapping[str, str]
    query: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    status: int
    body: str = ""
    content_type: str = "text/plain"
    headers: tuple[tuple[str, str], ...] = ()


class Answerer(Protocol):
    def answer(self, node: HostedNode, question: Question, now: datetime) -> Answer: ...


NOT_FOUND = Answer(404, "404 - Not Found\n")


def _z(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _json(value: object) -> Answer:
    return Answer(200, json.dumps(value), "application/json")


class AwsMetadata:
    """IMDSv2: a token first, then every read carries it."""

    def __init__(self, signers: InstanceSigners) -> None:
        self._signers = signers
        self._tokens: dict[str, tuple[str, datetime]] = {}

    def answer(self, node: HostedNode, question: Question, now: datetime) -> Answer:
        if question.path == "/latest/api/token":
            return self._issue(node, question, now)
        owner, until = self._tokens.get(question.headers.get("x-aws-ec2-metadata-token", ""), ("", now))
        if owner != node.place.address or until <= now:
            return Answer(401, "401 - Unauthorized\n")
        if question.method != "GET":
            return Answer(405)
        if question.path in _AWS_IDENTITY:
            return self._identity(node, question.path)
        read = self._leaves(node).get(question.path.rstrip("/"))
        return NOT_FOUND if read is None else read

    def _issue(self, node: HostedNode, question: Question, now: datetime) -> Answer:
        if question.method != "PUT":
            return Answer(405)
        ttl = question.headers.get("x-aws-ec2-metadata-token-ttl-seconds", "")
        if not ttl.isdigit() or not 1 <= int(ttl) <= _MAX_TOKEN_SECONDS:
            return Answer(400, "400 - Bad Request\n")
        self._tokens = {token: owned for token, owned in self._tokens.items() if owned[1] > now}
        token = secrets.token_urlsafe(32)
        self._tokens[token] = (node.place.address, now + timedelta(seconds=int(ttl)))
        return Answer(200, token, headers=(("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", ttl),))

    def _leaves(self, node: HostedNode) -> dict[str, Answer]:
        instance, notice = node.instance, node.notice
        meta = "/latest/meta-data"
        leaves = {
            f"{meta}/instance-id": instance.instance_id,
            f"{meta}/instance-type": instance.instance_type,
            f"{meta}/instance-life-cycle": "spot" if instance.spot else "on-demand",
            f"{meta}/local-ipv4": instance.private_ip or node.place.address,
            f"{meta}/placement/region": instance.region,
            f"{meta}/placement/availability-zone": instance.zone,
            f"{meta}/tags/instance/shardwright-node": instance.node,
        }
        answers = {path: Answer(200, text) for path, text in leaves.items() if text}
        if instance.user_data:
            answers["/latest/user-data"] = Answer(200, instance.user_data, "application/octet-stream")
        if notice is not None:
            answers[f"{meta}/spot/instance-action"] = _json({"action": "terminate", "time": _z(notice.at)})
            answers[f"{meta}/spot/termination-time"] = Answer(200, _z(notice.at))
        return answers

    def _identity(self, node: HostedNode, path: str) -> Answer:
        instance = node.instance
        said = {
            "accountId": node.account,
            "availabilityZone": instance.zone,
            "instanceId": instance.instance_id,
            "instanceType": instance.instance_type,
            "pendingTime": _z(instance.launched_at),
            "privateIp": instance.private_ip or node.place.address,
            "region": instance.region,
            "version": "2017-09-30",
        }
        if path.endswith("/document"):
            return _json(said)
        return Answer(200, self._signers.aws_document(json.dumps(said)))


class GcpMetadata:
    """Needs ``Metadata-Flavor: Google``; ``preempted`` turns TRUE with the notice."""

    _flavor = (("Metadata-Flavor", "Google"),)

    def __init__(self, signers: InstanceSigners) -> None:
        self._signers = signers

    def answer(self, node: HostedNode, question: Question, now: datetime) -> Answer:
        if question.headers.get("metadata-flavor") != "Google":
            return Answer(403, "Missing Metadata-Flavor:Google header.\n", headers=self._flavor)
        if question.path == _GCP_IDENTITY and question.method == "GET":
            return self._identity(node, question, now)
        instance = node.instance
        base, project = "/computeMetadata/v1/instance", f"projects/{node.account}"
        leaves = {
            f"{base}/name": node.node,
            f"{base}/id": instance.instance_id,
            f"{base}/zone": f"{project}/zones/{instance.zone}",
            f"{base}/machine-type": f"{project}/machineTypes/{instance.instance_type}",
            f"{base}/preempted": "FALSE" if node.notice is None else "TRUE",
            f"{base}/scheduling/preemptible": "TRUE" if instance.spot else "FALSE",
            f"{base}/network-interfaces/0/ip": instance.private_ip or node.place.address,
            f"{base}/attributes/shardwright-node": instance.node,
            f"{base}/attributes/user-data": instance.user_data,
            f"{base}/attributes/startup-script": instance.user_data,
            "/computeMetadata/v1/project/project-id": node.account,
        }
        text = leaves.get(question.path.rstrip("/"), "")
        if question.method != "GET" or not text:
            return Answer(404, headers=self._flavor)
        return Answer(200, text, "application/text", headers=self._flavor)

    def _identity(self, node: HostedNode, question: Question, now: datetime) -> Answer:
        audience = question.query.get("audience", "")
        if not audience:
            return Answer(400, "non-empty audience parameter required\n", headers=self._flavor)
        instance = node.instance
        said = {
            "instance_creation_timestamp": int(instance.launched_at.timestamp()),
            "instance_id": instance.instance_id,
            "instance_name": node.node,
            "project_id": node.account,
            "zone": instance.zone,
        }
        full = said if question.query.get("format") == "full" else {}
        return Answer(200, self._signers.google_token(audience, full, now), "application/text", headers=self._flavor)


class AzureMetadata:
    """Needs ``Metadata: true`` and an api-version; a reclaim is a scheduled event of type Preempt."""

    def __init__(self, signers: InstanceSigners) -> None:
        self._signers = signers

    def answer(self, node: HostedNode, question: Question, now: datetime) -> Answer:
        if question.headers.get("metadata", "").lower() != "true":
            return self._refuse("Bad request. Required metadata header not specified")
        if not question.query.get("api-version"):
            return self._refuse("Bad request. api-version was not specified in the request")
        readers: dict[str, Callable[[], Answer]] = {
            "/metadata/instance": lambda: _json({"compute": self._compute(node), "network": self._network(node)}),
            "/metadata/instance/compute": lambda: _json(self._compute(node)),
            "/metadata/instance/compute/name": lambda: Answer(200, node.node),
            "/metadata/instance/compute/vmId": lambda: Answer(200, node.instance.instance_id),
            "/metadata/instance/compute/userData": lambda: Answer(200, self._user_data(node)),
            "/metadata/scheduledevents": lambda: _json(self._events(node)),
            "/metadata/attested/document": lambda: self._attested(node, question.query.get("nonce", ""), now),
        }
        read = readers.get(question.path.rstrip("/"))
        if read is None:
            return Answer(404, json.dumps({"error": "Not found"}), "application/json")
        return read() if question.method == "GET" else Answer(405)

    def _attested(self, node: HostedNode, nonce: str, now: datetime) -> Answer:
        if nonce and not (nonce.isdecimal() and len(nonce) <= _AZURE_NONCE_DIGITS):
            return self._refuse("Bad request. nonce must be at most ten digits")
        said = {
            "nonce": nonce or now.strftime("%m/%d/%y %H:%M:%S -0000"),
            "subscriptionId": node.account,
            "vmId": node.instance.instance_id,
        }
        return _json({"encoding": "pkcs7", "signature": self._signers.azure_document(said, now)})

    def _refuse(self, why: str) -> Answer:
        return Answer(400, json.dumps({"error": why}), "application/json")

    def _user_data(self, node: HostedNode) -> str:
        return b64encode(node.instance.user_data.encode()).decode()

    def _compute(self, node: HostedNode) -> dict[str, object]:
        instance = node.instance
        return {
            "azEnvironment": "AzurePublicCloud",
            "location": instance.region,
            "name": node.node,
            "osType": "Linux",
            "priority": "Spot" if instance.spot else "Regular",
            "subscriptionId": node.account,
            "tagsList": [{"name": "shardwright-node", "value": instance.node}],
            "userData": self._user_data(node),
            "vmId": instance.instance_id,
            "vmSize": instance.instance_type,
            "zone": instance.zone,
        }

    def _network(self, node: HostedNode) -> dict[str, object]:
        address = node.instance.private_ip or node.place.address
        return {"interface": [{"ipv4": {"ipAddress": [{"privateIpAddress": address, "publicIpAddress": ""}]}}]}

    def _events(self, node: HostedNode) -> dict[str, object]:
        notice = node.notice
        if notice is None:
            return {"DocumentIncarnation": 1, "Events": []}
        event = {
            "EventId": f"{notice.instance_id}-preempt",
            "EventType": "Preempt",
            "ResourceType": "VirtualMachine",
            "Resources": [node.node],
            "EventStatus": "Scheduled",
            "NotBefore": format_datetime(notice.at, usegmt=True),
            "Description": notice.reason,
            "EventSource": "Platform",
            "DurationInSeconds": -1,
        }
        return {"DocumentIncarnation": 2, "Events": [event]}


class NetworkMetadata:
    """``/notices``: the notices of this very node, in the words of the sandbox contract."""

    def answer(self, node: HostedNode, question: Question, now: datetime) -> Answer:
        if question.method != "GET":
            return Answer(405)
        if question.path == "/notices":
            notices = [] if node.notice is None else [node.notice]
            return Answer(200, NOTICES.dump_json(notices).decode(), "application/json")
        leaves = {
            "/node": node.node,
            "/instance-id": node.instance.instance_id,
            "/region": node.instance.region,
            "/zone": node.instance.zone,
            "/user-data": node.instance.user_data,
        }
        text = leaves.get(question.path.rstrip("/"), "")
        return Answer(200, text) if text else NOT_FOUND


def answerers(signers: InstanceSigners) -> dict[str, Answerer]:
    """Kind of provider -> its answerer; the AWS one remembers the tokens that it issued."""
    return {
        "aws": AwsMetadata(signers),
        "gcp": GcpMetadata(signers),
        "azure": AzureMetadata(signers),
        "network": NetworkMetadata(),
    }
