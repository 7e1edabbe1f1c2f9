"""One AWS cell: a VPC, a subnet per zone in use, one security group, and an EC2 instance per planned node."""

import re
from collections.abc import Mapping
from functools import partial

import pulumi
from pulumi_aws import Provider
from pulumi_aws.ec2 import (
    Instance,
    InternetGateway,
    RouteTable,
    RouteTableAssociation,
    SecurityGroup,
    Subnet,
    Vpc,
    get_ami_output,
)

from engine.model.ids import NodeId
from engine.model.placement import Cell
from engine.model.plan import CellPlan, PlannedNode
from providers.aws_api import NO_CAPACITY as NO_CAPACITY
from providers.base import ProviderSettings
from stacks.adoption import Adoption
from stacks.aws_lookup import AwsAdoption
from stacks.base import PulumiFn
from stacks.ingress import NODE_INGRESS
from stacks.naming import CELL_NETWORK, NODE_DISK_GIB, PRICE_TAG, is_spot, node_tags, shared_tags, zone_block

_DEBIAN_OWNER = "136693071363"
_NESTED_VIRTUALIZATION = re.compile(r"^[cmr]8i(-flex)?\.")
_ARM = re.compile(r"^[a-z]+\d+g[a-z]*\.")
_DECIDED_AT_CREATE = [
    "ami",
    "userData",
    "instanceMarketOptions.spotOptions.maxPrice",
    f'tags["{PRICE_TAG}"]',
    f'tagsAll["{PRICE_TAG}"]',
]
"""A running node keeps these: newer images and prices are for new nodes, and its join token is long spent."""

adoption: Adoption = AwsAdoption()
PLUGIN = "aws"


def program(cell: Cell, plan: CellPlan, settings: ProviderSettings, user_data: Mapping[NodeId, str]) -> PulumiFn:
    """See ``stacks.base.Program``."""
    return partial(_declare, cell, plan, settings, user_data)


def _declare(cell: Cell, plan: CellPlan, settings: ProviderSettings, user_data: Mapping[NodeId, str]) -> None:
    provider = _provider(cell, settings)
    options = pulumi.ResourceOptions(provider=provider)
    subnets, group = _network(cell, sorted({planned.node.zone for planned in plan.nodes}), options)
    images = {arch: _image(arch, provider) for arch in sorted({_architecture(p) for p in plan.nodes})}
    nodes = {
        planned.node.id: _node(
            cell,
            planned,
            image=images[_architecture(planned)],
            subnet=subnets[planned.node.zone],
            group=group,
            user_data=user_data.get(planned.node.id, ""),
            provider=provider,
        )
        for planned in plan.nodes
    }
    pulumi.export("nodes", {name: {"instance_id": i.id, "address": i.private_ip} for name, i in nodes.items()})


def _provider(cell: Cell, settings: ProviderSettings) -> Provider:
    secret = {key: pulumi.Output.secret(value.get_secret_value()) for key, value in settings.credentials.items()}
    return Provider(
        "aws",
        region=cell.region,
        allowed_account_ids=None if settings.endpoint else [cell.account],
        access_key=secret.get("access_key_id"),
        secret_key=secret.get("secret_access_key"),
        token=secret.get("session_token"),
        custom_ca_bundle=settings.ca_file,
        **_endpoint(settings.endpoint),
    )


def _endpoint(url: str | None) -> dict[str, object]:
    """An endpoint of one's own answers for EC2 and STS; it knows nothing of the account checks of AWS itself."""
    if url is None:
        return {}
    return {
        "endpoints": [{"ec2": url, "sts": url}],
        "skip_credentials_validation": True,
        "skip_region_validation": True,
        "skip_requesting_account_id": True,
        "skip_metadata_api_check": True,
    }


def _network(cell: Cell, zones: list[str], options: pulumi.ResourceOptions) -> tuple[dict[str, Subnet], SecurityGroup]:
    vpc = Vpc(
        "vpc",
        cidr_block=str(CELL_NETWORK),
        enable_dns_hostnames=True,
        tags=shared_tags(cell, "vpc"),
        opts=options,
    )
    gateway = InternetGateway("gateway", vpc_id=vpc.id, tags=shared_tags(cell, "gateway"), opts=options)
    routes = RouteTable(
        "routes",
        vpc_id=vpc.id,
        routes=[{"cidr_block": "0.0.0.0/0", "gateway_id": gateway.id}],
        tags=shared_tags(cell, "routes"),
        opts=options,
    )
    subnets = {}
    for zone in zones:
        subnets[zone] = Subnet(
            f"subnet-{zone}",
            vpc_id=vpc.id,
            availability_zone=zone,
            cidr_block=str(zone_block(zone)),
            tags=shared_tags(cell, f"subnet-{zone}"),
            opts=options,
        )
        RouteTableAssociation(f"routes-{zone}", subnet_id=subnets[zone].id, route_table_id=routes.id, opts=options)
    group = SecurityGroup(
        "nodes",
        description="Shardwright nodes",
        vpc_id=vpc.id,
        ingress=[
            {
                "protocol": rule.protocol,
                "from_port": rule.first_port,
                "to_port": rule.last_port,
                "cidr_blocks": [rule.source],
                "description": rule.why,
            }
            for rule in NODE_INGRESS
        ],
        egress=[
            {
                "protocol": "-1",
                "from_port": 0,
                "to_port": 0,
                "cidr_blocks": ["0.0.0.0/0"],
                "description": "packages and other agents",
            }
        ],
        tags=shared_tags(cell, "nodes"),
        opts=options,
    )
    return subnets, group


def _architecture(planned: PlannedNode) -> str:
    return "arm64" if _ARM.match(planned.node.instance_type) else "amd64"


def _image(architecture: str, provider: Provider) -> pulumi.Output[str]:
    """The newest Debian 12 image that Debian itself publishes."""
    found = get_ami_output(
        most_recent=True,
        owners=[_DEBIAN_OWNER],
        filters=[{"name": "name", "values": [f"debian-12-{architecture}-*"]}],
        opts=pulumi.InvokeOutputOptions(provider=provider),
    )
    image: pulumi.Output[str] = found.id
    return image


def _node(
    cell: Cell,
    planned: PlannedNode,
    *,
    image: pulumi.Output[str],
    subnet: Subnet,
    group: SecurityGroup,
    user_data: str,
    provider: Provider,
) -> Instance:
    tags = {"Name": planned.node.id, **node_tags(cell, planned)}
    nested = _NESTED_VIRTUALIZATION.match(planned.node.instance_type) is not None
    return Instance(
        planned.node.id,
        ami=image,
        instance_type=planned.node.instance_type,
        availability_zone=planned.node.zone,
        subnet_id=subnet.id,
        vpc_security_group_ids=[group.id],
        associate_public_ip_address=True,
        cpu_options={"nested_virtualization": "enabled"} if nested else None,
        metadata_options={"http_endpoint": "enabled", "http_tokens": "required", "http_put_response_hop_limit": 1},
        root_block_device={"encrypted": True, "volume_type": "gp3", "volume_size": NODE_DISK_GIB, "tags": tags},
        instance_market_options=_spot(planned),
        user_data=pulumi.Output.secret(user_data),
        tags=tags,
        opts=pulumi.ResourceOptions(provider=provider, ignore_changes=[*_DECIDED_AT_CREATE, "rootBlockDevice.tags"]),
    )


def _spot(planned: PlannedNode) -> dict[str, object] | None:
    if not is_spot(planned):
        return None
    spot: dict[str, object] = {"spot_instance_type": "one-time", "instance_interruption_behavior": "terminate"}
    if planned.quote is not None:
        spot["max_price"] = str(planned.quote.price_ceiling.amount)
    return {"market_type": "spot", "spot_options": spot}
