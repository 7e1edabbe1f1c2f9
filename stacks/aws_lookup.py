"""Finding AWS resources again after an interrupted update: EC2 chooses their ids, so they are found by tag."""

from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from engine.errors import ProviderUnavailable
from engine.model.placement import Cell
from providers.base import InstanceRecord, ProviderSettings
from stacks.adoption import Inputs, InstanceOf
from stacks.naming import TOKEN_TAG

_ASSOCIATION = "aws:ec2/routeTableAssociation:RouteTableAssociation"
_DESCRIBED = {
    "aws:ec2/vpc:Vpc": ("describe_vpcs", "Vpcs", "VpcId"),
    "aws:ec2/subnet:Subnet": ("describe_subnets", "Subnets", "SubnetId"),
    "aws:ec2/internetGateway:InternetGateway": (
        "describe_internet_gateways",
        "InternetGateways",
        "InternetGatewayId",
    ),
    "aws:ec2/routeTable:RouteTable": ("describe_route_tables", "RouteTables", "RouteTableId"),
    "aws:ec2/securityGroup:SecurityGroup": ("describe_security_groups", "SecurityGroups", "GroupId"),
}
"""Type -> (EC2 operation, its list, the id in it)."""


class AwsAdoption:
    instance = InstanceOf("aws:ec2/instance:Instance", "tags")

    def instance_id(self, cell: Cell, record: InstanceRecord) -> str:
        return record.instance_id

    def shared_id(self, cell: Cell, settings: ProviderSettings, type_: str, inputs: Inputs) -> str | None:
        """Raises ProviderUnavailable."""
        try:
            if type_ == _ASSOCIATION:
                return _association(_ec2(cell, settings), str(inputs.get("subnetId")))
            token = (inputs.get("tags") or {}).get(TOKEN_TAG)
            return _tagged(_ec2(cell, settings), type_, token) if token and type_ in _DESCRIBED else None
        except (BotoCoreError, ClientError) as problem:
            raise ProviderUnavailable(f"{cell.id}: what exists cannot be looked up", why=str(problem)) from problem


def _ec2(cell: Cell, settings: ProviderSettings) -> Any:
    def secret(key: str) -> str | None:
        value = settings.credentials.get(key)
        return None if value is None else value.get_secret_value()

    return boto3.client(
        "ec2",
        region_name=cell.region,
        endpoint_url=settings.endpoint,
        verify=settings.ca_file or True,
        aws_access_key_id=secret("access_key_id"),
        aws_secret_access_key=secret("secret_access_key"),
        aws_session_token=secret("session_token"),
        config=Config(
            connect_timeout=settings.timeout_seconds,
            read_timeout=settings.timeout_seconds,
            retries={"mode": "standard", "max_attempts": 4},
        ),
    )


def _tagged(ec2: Any, type_: str, token: str) -> str | None:
    """Asked of the resource type itself: the list of all tags may still name what is deleted."""
    operation, listed, identifier = _DESCRIBED[type_]
    found = getattr(ec2, operation)(Filters=[{"Name": f"tag:{TOKEN_TAG}", "Values": [token]}])[listed]
    return str(found[0][identifier]) if found else None


def _association(ec2: Any, subnet: str) -> str | None:
    tables = ec2.describe_route_tables(Filters=[{"Name": "association.subnet-id", "Values": [subnet]}])["RouteTables"]
    links = [link for table in tables for link in table["Associations"] if link.get("SubnetId") == subnet]
    return str(links[0]["RouteTableAssociationId"]) if links else None
