"""The stand-in for Pulumi's aws plugin: EC2 calls through boto3 to the configured endpoint."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from time import monotonic, sleep
from typing import Any, ClassVar, cast

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from engine.errors import (
    AuthenticationFailed,
    ConfigurationError,
    InsufficientCapacity,
    ProviderAnswerInvalid,
    ProviderError,
    ProviderUnavailable,
)
from providers.plugin.kinds import Invoke, Made, ResourceKind
from providers.plugin.values import Plain, Properties

Ec2 = Any
"""A boto3 EC2 client; its methods exist only at run time."""
_TOKEN_TAG = "shardwright-token"  # noqa: S105 (a tag's name)
_START_SECONDS = 60.0
_POLL_SECONDS = 0.1
_GONE = {"shutting-down", "terminated"}
_CAPACITY = {"InsufficientInstanceCapacity", "SpotMaxPriceTooLow", "InsufficientHostCapacity"}
_DENIED = {"AuthFailure", "UnauthorizedOperation", "InvalidClientTokenId", "SignatureDoesNotMatch"}


def connect(configuration: Properties) -> Ec2:
    """A session from the Provider resource's configuration."""
    endpoints = configuration.get("endpoints") or []
    endpoints = json.loads(endpoints) if isinstance(endpoints, str) else endpoints
    url = next((endpoint["ec2"] for endpoint in endpoints if endpoint.get("ec2")), None)
    if url is None:
        raise ConfigurationError("the stand-in for aws needs endpoints=[{ec2: …}]", why="it serves a sandbox only")
    return boto3.client(
        "ec2",
        region_name=configuration["region"],
        endpoint_url=url,
        aws_access_key_id=configuration.get("accessKey"),
        aws_secret_access_key=configuration.get("secretKey"),
        aws_session_token=configuration.get("token"),
        verify=configuration.get("customCaBundle") or True,
        config=Config(connect_timeout=5, read_timeout=20, retries={"mode": "standard", "max_attempts": 4}),
    )


@contextmanager
def _named_errors(action: str) -> Iterator[None]:
    try:
        yield
    except ClientError as problem:
        code, message = problem.response["Error"].get("Code", ""), problem.response["Error"].get("Message", "")
        kind = InsufficientCapacity if code in _CAPACITY else AuthenticationFailed if code in _DENIED else ProviderError
        raise kind(f"aws: {action}: {code}", why=message) from None
    except BotoCoreError as problem:
        kind = ProviderUnavailable if "onnect" in type(problem).__name__ else ProviderAnswerInvalid
        raise kind(f"aws: {action}", why=str(problem)) from None


def _missing(problem: ClientError) -> bool:
    return str(problem.response["Error"].get("Code", "")).endswith((".NotFound", "NotFound"))


def _tag_specification(kind: str, tags: Properties) -> list[dict[str, Any]]:
    return [{"ResourceType": kind, "Tags": [{"Key": k, "Value": v} for k, v in tags.items()]}] if tags else []


def _tags_of(described: Mapping[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in described.get("Tags", [])}


def _retag(ec2: Ec2, resource_id: str, old: Properties, new: Properties) -> None:
    gone = [{"Key": key} for key in old if key not in new]
    if gone:
        ec2.delete_tags(Resources=[resource_id], Tags=gone)
    changed = [{"Key": key, "Value": value} for key, value in new.items() if old.get(key) != value]
    if changed:
        ec2.create_tags(Resources=[resource_id], Tags=changed)


class _Ec2Kind(ResourceKind[Ec2]):
    """Create, describe and delete by id; tags are the only thing that changes in place."""

    tag_kind: ClassVar[str]
    replace_on: ClassVar[frozenset[str]] = frozenset()

    def describe(self, ec2: Ec2, resource_id: str) -> Mapping[str, Any] | None:
        raise NotImplementedError

    def make(self, ec2: Ec2, inputs: Properties, tags: list[dict[str, Any]]) -> Mapping[str, Any]:
        raise NotImplementedError

    def unmake(self, ec2: Ec2, resource_id: str, properties: Properties) -> None:
        raise NotImplementedError

    def outputs(self, ec2: Ec2, described: Mapping[str, Any]) -> dict[str, Plain]:
        return {}

    def identify(self, described: Mapping[str, Any]) -> str:
        raise NotImplementedError

    def create(self, session: Ec2, name: str, inputs: Properties) -> Made:
        with _named_errors(f"create {name}"):
            made = self.make(session, inputs, _tag_specification(self.tag_kind, inputs.get("tags") or {}))
            return self._made(session, made, inputs.get("tags") or {})

    def read(self, session: Ec2, resource_id: str, inputs: Properties) -> Made | None:
        with _named_errors(f"read {resource_id}"):
            try:
                described = self.describe(session, resource_id)
            except ClientError as problem:
                if _missing(problem):
                    return None
                raise
            return self._made(session, described, _tags_of(described)) if described else None

    def update(self, session: Ec2, resource_id: str, old: Properties, new: Properties) -> Properties:
        with _named_errors(f"update {resource_id}"):
            tags = new.get("tags") or {}
            _retag(session, resource_id, old.get("tags") or {}, tags)
            return {"tagsAll": tags}

    def delete(self, session: Ec2, resource_id: str, properties: Properties) -> None:
        with _named_errors(f"delete {resource_id}"):
            try:
                self.unmake(session, resource_id, properties)
            except ClientError as problem:
                if not _missing(problem):
                    raise

    def observed(self, inputs: Properties, outputs: Properties) -> dict[str, Plain]:
        return {**inputs, "tags": outputs["tagsAll"]} if "tags" in inputs else dict(inputs)

    def _made(self, ec2: Ec2, described: Mapping[str, Any], tags: Properties) -> Made:
        return Made(self.identify(described), {**self.outputs(ec2, described), "tagsAll": dict(tags)})


class _VpcKind(_Ec2Kind):
    tag_kind = "vpc"
    replace_on = frozenset({"cidrBlock"})

    def make(self, ec2: Ec2, inputs: Properties, tags: list[dict[str, Any]]) -> Mapping[str, Any]:
        return cast(Mapping[str, Any], ec2.create_vpc(CidrBlock=inputs["cidrBlock"], TagSpecifications=tags)["Vpc"])

    def describe(self, ec2: Ec2, resource_id: str) -> Mapping[str, Any] | None:
        return _only(ec2.describe_vpcs(VpcIds=[resource_id])["Vpcs"])

    def unmake(self, ec2: Ec2, resource_id: str, properties: Properties) -> None:
        ec2.delete_vpc(VpcId=resource_id)

    def identify(self, described: Mapping[str, Any]) -> str:
        return str(described["VpcId"])


class _GatewayKind(_Ec2Kind):
    tag_kind = "internet-gateway"
    replace_on = frozenset({"vpcId"})

    def make(self, ec2: Ec2, inputs: Properties, tags: list[dict[str, Any]]) -> Mapping[str, Any]:
        made = ec2.create_internet_gateway(TagSpecifications=tags)["InternetGateway"]
        ec2.attach_internet_gateway(InternetGatewayId=made["InternetGatewayId"], VpcId=inputs["vpcId"])
        return cast(Mapping[str, Any], made)

    def describe(self, ec2: Ec2, resource_id: str) -> Mapping[str, Any] | None:
        return _only(ec2.describe_internet_gateways(InternetGatewayIds=[resource_id])["InternetGateways"])

    def unmake(self, ec2: Ec2, resource_id: str, properties: Properties) -> None:
        ec2.detach_internet_gateway(InternetGatewayId=resource_id, VpcId=properties["vpcId"])
        ec2.delete_internet_gateway(InternetGatewayId=resource_id)

    def identify(self, described: Mapping[str, Any]) -> str:
        return str(described["InternetGatewayId"])


class _RouteTableKind(_Ec2Kind):
    tag_kind = "route-table"
    replace_on = frozenset({"vpcId", "routes"})

    def make(self, ec2: Ec2, inputs: Properties, tags: list[dict[str, Any]]) -> Mapping[str, Any]:
        made = ec2.create_route_table(VpcId=inputs["vpcId"], TagSpecifications=tags)["RouteTable"]
        for route in inputs.get("routes") or []:
            ec2.create_route(
                RouteTableId=made["RouteTableId"],
                DestinationCidrBlock=route["cidrBlock"],
                GatewayId=route["gatewayId"],
            )
        return cast(Mapping[str, Any], made)

    def describe(self, ec2: Ec2, resource_id: str) -> Mapping[str, Any] | None:
        return _only(ec2.describe_route_tables(RouteTableIds=[resource_id])["RouteTables"])

    def unmake(self, ec2: Ec2, resource_id: str, properties: Properties) -> None:
        ec2.delete_route_table(RouteTableId=resource_id)

    def identify(self, described: Mapping[str, Any]) -> str:
        return str(described["RouteTableId"])


class _AssociationKind(ResourceKind[Ec2]):
    replace_on = frozenset({"routeTableId", "subnetId"})

    def create(self, session: Ec2, name: str, inputs: Properties) -> Made:
        with _named_errors(f"create {name}"):
            made = session.associate_route_table(RouteTableId=inputs["routeTableId"], SubnetId=inputs["subnetId"])
            return Made(made["AssociationId"])

    def read(self, session: Ec2, resource_id: str, inputs: Properties) -> Made | None:
        with _named_errors(f"read {resource_id}"):
            filters = [{"Name": "association.route-table-association-id", "Values": [resource_id]}]
            return Made(resource_id) if session.describe_route_tables(Filters=filters)["RouteTables"] else None

    def delete(self, session: Ec2, resource_id: str, properties: Properties) -> None:
        with _named_errors(f"delete {resource_id}"):
            try:
                session.disassociate_route_table(AssociationId=resource_id)
            except ClientError as problem:
                if not _missing(problem):
                    raise


class _SubnetKind(_Ec2Kind):
    tag_kind = "subnet"
    replace_on = frozenset({"vpcId", "cidrBlock", "availabilityZone"})

    def make(self, ec2: Ec2, inputs: Properties, tags: list[dict[str, Any]]) -> Mapping[str, Any]:
        made = ec2.create_subnet(
            VpcId=inputs["vpcId"],
            CidrBlock=inputs["cidrBlock"],
            AvailabilityZone=inputs["availabilityZone"],
            TagSpecifications=tags,
        )
        return cast(Mapping[str, Any], made["Subnet"])

    def describe(self, ec2: Ec2, resource_id: str) -> Mapping[str, Any] | None:
        return _only(ec2.describe_subnets(SubnetIds=[resource_id])["Subnets"])

    def unmake(self, ec2: Ec2, resource_id: str, properties: Properties) -> None:
        ec2.delete_subnet(SubnetId=resource_id)

    def identify(self, described: Mapping[str, Any]) -> str:
        return str(described["SubnetId"])


class _SecurityGroupKind(_Ec2Kind):
    tag_kind = "security-group"
    named = "name"
    replace_on = frozenset({"name", "vpcId", "description", "ingress", "egress"})

    def make(self, ec2: Ec2, inputs: Properties, tags: list[dict[str, Any]]) -> Mapping[str, Any]:
        made = ec2.create_security_group(
            GroupName=inputs["name"],
            Description=inputs.get("description") or "Managed by Pulumi",
            VpcId=inputs["vpcId"],
            TagSpecifications=tags,
        )
        rules = [_permission(rule) for rule in inputs.get("ingress") or []]
        if rules:
            ec2.authorize_security_group_ingress(GroupId=made["GroupId"], IpPermissions=rules)
        return cast(Mapping[str, Any], made)

    def describe(self, ec2: Ec2, resource_id: str) -> Mapping[str, Any] | None:
        return _only(ec2.describe_security_groups(GroupIds=[resource_id])["SecurityGroups"])

    def unmake(self, ec2: Ec2, resource_id: str, properties: Properties) -> None:
        ec2.delete_security_group(GroupId=resource_id)

    def identify(self, described: Mapping[str, Any]) -> str:
        return str(described["GroupId"])


def _permission(rule: Properties) -> dict[str, Any]:
    return {
        "IpProtocol": rule["protocol"],
        "FromPort": int(rule["fromPort"]),
        "ToPort": int(rule["toPort"]),
        "IpRanges": [
            {"CidrIp": block, "Description": rule.get("description") or ""} for block in rule.get("cidrBlocks") or []
        ],
    }


class _InstanceKind(_Ec2Kind):
    """``privateIp`` is known once the instance runs; creating twice with one token makes one (ClientToken)."""

    tag_kind = "instance"
    computed = ("privateIp", "instanceState")
    replace_on = frozenset(
        {"ami", "instanceType", "availabilityZone", "subnetId", "userData", "instanceMarketOptions", "rootBlockDevice"}
    )

    def make(self, ec2: Ec2, inputs: Properties, tags: list[dict[str, Any]]) -> Mapping[str, Any]:
        token = (inputs.get("tags") or {}).get(_TOKEN_TAG)
        request: dict[str, Any] = {
            "ImageId": inputs["ami"],
            "InstanceType": inputs["instanceType"],
            "SubnetId": inputs["subnetId"],
            "SecurityGroupIds": inputs.get("vpcSecurityGroupIds") or [],
            "UserData": inputs.get("userData") or "",
            "Placement": {"AvailabilityZone": inputs["availabilityZone"]},
            "TagSpecifications": tags,
            "MetadataOptions": {
                "HttpTokens": (inputs.get("metadataOptions") or {}).get("httpTokens", "optional"),
                "HttpEndpoint": "enabled",
            },
        }
        if token:
            request["ClientToken"] = sha256(token.encode()).hexdigest()
        if inputs.get("instanceMarketOptions"):
            request["InstanceMarketOptions"] = _market(inputs["instanceMarketOptions"])
        started = ec2.run_instances(MinCount=1, MaxCount=1, **request)["Instances"][0]
        if token and self.describe(ec2, started["InstanceId"]) is None:
            # The token was spent on an instance that has ended since: this creation is a new one.
            request["ClientToken"] = sha256(f"{token}/{started['InstanceId']}".encode()).hexdigest()
            started = ec2.run_instances(MinCount=1, MaxCount=1, **request)["Instances"][0]
        return self._await_running(ec2, started["InstanceId"])

    def describe(self, ec2: Ec2, resource_id: str) -> Mapping[str, Any] | None:
        reservations = ec2.describe_instances(InstanceIds=[resource_id])["Reservations"]
        found = _only([instance for reservation in reservations for instance in reservation["Instances"]])
        return None if found is None or found["State"]["Name"] in _GONE else found

    def unmake(self, ec2: Ec2, resource_id: str, properties: Properties) -> None:
        ec2.terminate_instances(InstanceIds=[resource_id])

    def identify(self, described: Mapping[str, Any]) -> str:
        return str(described["InstanceId"])

    def outputs(self, ec2: Ec2, described: Mapping[str, Any]) -> dict[str, Plain]:
        return {
            "privateIp": described.get("PrivateIpAddress"),
            "instanceState": described["State"]["Name"],
            "availabilityZone": described["Placement"]["AvailabilityZone"],
        }

    def _await_running(self, ec2: Ec2, instance_id: str) -> Mapping[str, Any]:
        deadline = monotonic() + _START_SECONDS
        while monotonic() < deadline:
            found = self.describe(ec2, instance_id)
            if found is None:
                raise InsufficientCapacity(f"aws: {instance_id} ended before it ran")
            if found["State"]["Name"] == "running":
                return found
            sleep(_POLL_SECONDS)
        raise ProviderUnavailable(f"aws: {instance_id} is not running after {_START_SECONDS:g} s")


def _market(options: Properties) -> dict[str, Any]:
    spot = options.get("spotOptions") or {}
    wanted = {
        "MaxPrice": spot.get("maxPrice"),
        "SpotInstanceType": spot.get("spotInstanceType"),
        "InstanceInterruptionBehavior": spot.get("instanceInterruptionBehavior"),
    }
    return {"MarketType": options["marketType"], "SpotOptions": {k: v for k, v in wanted.items() if v is not None}}


def _only(found: list[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    return found[0] if found else None


def _get_ami(session: Ec2, arguments: Properties) -> Properties:
    """The newest image whose name fits; the sandbox's catalogue is given one of that name where it has none."""
    pattern = next(f["values"][0] for f in arguments["filters"] if f["name"] == "name")
    with _named_errors("getAmi"):
        found = session.describe_images(Filters=[{"Name": "name", "Values": [pattern]}])["Images"]
        if found:
            newest = max(found, key=lambda image: image.get("CreationDate", ""))
            return {"id": newest["ImageId"], "name": newest["Name"]}
        name = pattern.replace("*", "20260101")
        architecture = "arm64" if "arm64" in pattern else "x86_64"
        made = session.register_image(Name=name, Architecture=architecture, RootDeviceName="/dev/xvda")
        return {"id": made["ImageId"], "name": name}


KINDS: dict[str, ResourceKind[Any]] = {
    "aws:ec2/vpc:Vpc": _VpcKind(),
    "aws:ec2/internetGateway:InternetGateway": _GatewayKind(),
    "aws:ec2/routeTable:RouteTable": _RouteTableKind(),
    "aws:ec2/routeTableAssociation:RouteTableAssociation": _AssociationKind(),
    "aws:ec2/subnet:Subnet": _SubnetKind(),
    "aws:ec2/securityGroup:SecurityGroup": _SecurityGroupKind(),
    "aws:ec2/instance:Instance": _InstanceKind(),
}
INVOKES: dict[str, Invoke] = {"aws:ec2/getAmi:getAmi": _get_ami}
