"""One Google Cloud cell: a network, a subnetwork, a firewall rule, and a Compute Engine instance per planned node."""

import json
import re
from collections.abc import Mapping
from functools import partial

import pulumi
from pulumi_gcp import Provider
from pulumi_gcp.compute import Firewall, Instance, Network, Subnetwork

from engine.model.ids import NodeId
from engine.model.placement import Cell
from engine.model.plan import CellPlan, PlannedNode
from providers.base import InstanceRecord, ProviderSettings
from providers.rest import NO_CAPACITY as NO_CAPACITY
from stacks.adoption import Adoption, Inputs, InstanceOf
from stacks.base import PulumiFn
from stacks.ingress import NODE_INGRESS
from stacks.naming import CELL_NETWORK, NODE_DISK_GIB, NODE_TAG, PRICE_TAG, is_spot, node_tags

_IMAGE = "projects/debian-cloud/global/images/family/debian-12"
_ARM_IMAGE = "projects/debian-cloud/global/images/family/debian-12-arm64"
_ARM = re.compile(r"^(t2a|c4a)-")
_NESTED_VIRTUALIZATION = re.compile(r"^(n1|n2|c2|c3|c4|m1|m2|m3)-")
"""Intel families; Google documents that E2, AMD and Arm types refuse it."""
_NO_POWER = "https://www.googleapis.com/auth/userinfo.email"
"""The least scope there is: the account's own address."""
_DECIDED_AT_CREATE = [
    "metadataStartupScript",
    f'metadata["{PRICE_TAG}"]',
    "bootDisk.initializeParams.image",
    "serviceAccount",
]


class _Adoption:
    """Names are ours, so every id follows from the inputs."""

    instance = InstanceOf("gcp:compute/instance:Instance", "metadata", id_output="instanceId")

    def instance_id(self, cell: Cell, record: InstanceRecord) -> str:
        return f"projects/{cell.account}/zones/{record.zone}/instances/{record.node}"

    def shared_id(self, cell: Cell, settings: ProviderSettings, type_: str, inputs: Inputs) -> str | None:
        place = _PLACES.get(type_)
        return None if place is None else f"projects/{cell.account}/{place.format(**inputs)}"


_PLACES = {
    "gcp:compute/network:Network": "global/networks/{name}",
    "gcp:compute/firewall:Firewall": "global/firewalls/{name}",
    "gcp:compute/subnetwork:Subnetwork": "regions/{region}/subnetworks/{name}",
}
adoption: Adoption = _Adoption()
PLUGIN = "gcp"


def program(cell: Cell, plan: CellPlan, settings: ProviderSettings, user_data: Mapping[NodeId, str]) -> PulumiFn:
    """See ``stacks.base.Program``."""
    return partial(_declare, cell, plan, settings, user_data)


def _declare(cell: Cell, plan: CellPlan, settings: ProviderSettings, user_data: Mapping[NodeId, str]) -> None:
    provider = _provider(cell, settings)
    subnetwork = _network(cell, pulumi.ResourceOptions(provider=provider))
    nodes = {
        planned.node.id: _node(
            cell,
            planned,
            subnetwork,
            user_data.get(planned.node.id, ""),
            provider,
            vouched=settings.attestation_keys is not None,
        )
        for planned in plan.nodes
    }
    pulumi.export(
        "nodes",
        {
            name: {"instance_id": instance.instance_id, "address": instance.network_interfaces[0].network_ip}
            for name, instance in nodes.items()
        },
    )


def _provider(cell: Cell, settings: ProviderSettings) -> Provider:
    return Provider(
        "gcp",
        project=cell.account,
        region=cell.region,
        **_login(settings),
        compute_custom_endpoint=f"{settings.endpoint.rstrip('/')}/compute/v1/" if settings.endpoint else None,
    )


def _login(settings: ProviderSettings) -> dict[str, object]:
    """What ``providers.gcp_auth`` takes: a service account's key file, a user's refresh token, or an access token.

    With none of these the plugin uses the application default credentials of where it runs.
    """
    given = {key: value.get_secret_value() for key, value in settings.credentials.items()}
    if "service_account_json" in given:
        return {"credentials": pulumi.Output.secret(given["service_account_json"])}
    if "refresh_token" in given:
        user = {key: given.get(key, "") for key in ("client_id", "client_secret", "refresh_token")}
        return {"credentials": pulumi.Output.secret(json.dumps({"type": "authorized_user", **user}))}
    if "access_token" in given:
        return {"access_token": pulumi.Output.secret(given["access_token"])}
    return {}


def network_name(cell: Cell) -> str:
    """Networks are global in a project, so the region is part of the name."""
    return f"shardwright-{cell.region}"


def _network(cell: Cell, options: pulumi.ResourceOptions) -> Subnetwork:
    name = network_name(cell)
    network = Network("network", name=name, auto_create_subnetworks=False, opts=options)
    Firewall(
        "nodes",
        name=f"{name}-nodes",
        network=network.id,
        direction="INGRESS",
        description="; ".join(rule.why for rule in NODE_INGRESS),
        source_ranges=sorted({rule.source for rule in NODE_INGRESS}),
        target_tags=[NODE_TAG],
        allows=[
            {"protocol": rule.protocol, "ports": [_ports(rule.first_port, rule.last_port)]} for rule in NODE_INGRESS
        ],
        opts=options,
    )
    return Subnetwork(
        "subnetwork",
        name=name,
        region=cell.region,
        network=network.id,
        ip_cidr_range=str(CELL_NETWORK),
        private_ip_google_access=True,
        opts=options,
    )


def _ports(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def _node(
    cell: Cell, planned: PlannedNode, subnetwork: Subnetwork, user_data: str, provider: Provider, *, vouched: bool
) -> Instance:
    arm = _ARM.match(planned.node.instance_type) is not None
    nested = _NESTED_VIRTUALIZATION.match(planned.node.instance_type) is not None
    return Instance(
        planned.node.id,
        name=planned.node.id,
        machine_type=planned.node.instance_type,
        zone=planned.node.zone,
        boot_disk={
            "auto_delete": True,
            "initialize_params": {"image": _ARM_IMAGE if arm else _IMAGE, "size": NODE_DISK_GIB},
        },
        network_interfaces=[{"subnetwork": subnetwork.id, "access_configs": [{"network_tier": "PREMIUM"}]}],
        scheduling=_scheduling(planned),
        # Google signs an identity token for a service account only: the project's default one, with no power.
        service_account={"scopes": [_NO_POWER]} if vouched else None,
        advanced_machine_features={"enable_nested_virtualization": True} if nested else None,
        shielded_instance_config={"enable_vtpm": True, "enable_integrity_monitoring": True},
        labels={key: label_value(value) for key, value in node_tags(cell, planned).items() if key != PRICE_TAG},
        metadata={
            **node_tags(cell, planned),
            "enable-oslogin": "TRUE",
            "block-project-ssh-keys": "TRUE",
        },
        # Not among the metadata: one secret in there would make all of it secret, and hide the token from recovery.
        metadata_startup_script=pulumi.Output.secret(user_data),
        tags=[NODE_TAG],
        opts=pulumi.ResourceOptions(provider=provider, ignore_changes=_DECIDED_AT_CREATE),
    )


def _scheduling(planned: PlannedNode) -> dict[str, object]:
    """Google Cloud has no price ceiling for spot: its spot price is one price, changed at most once a day."""
    if is_spot(planned):
        return {
            "provisioning_model": "SPOT",
            "preemptible": True,
            "automatic_restart": False,
            "on_host_maintenance": "TERMINATE",
            "instance_termination_action": "DELETE",
        }
    return {
        "provisioning_model": "STANDARD",
        "preemptible": False,
        "automatic_restart": True,
        "on_host_maintenance": "TERMINATE",
    }


def label_value(text: str) -> str:
    """The nearest legal label: [a-z0-9_-], at most 63 characters. The exact text is in the metadata."""
    return re.sub(r"[^a-z0-9_-]", "-", text.lower())[:63]
