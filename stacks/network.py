"""One cell of a third-party network: a ``shardnet`` Reservation per planned node."""

from collections.abc import Mapping
from functools import partial

import pulumi

from engine.errors import AuthenticationFailed, ConfigurationError
from engine.model.ids import NodeId
from engine.model.placement import Cell
from engine.model.plan import CellPlan, PlannedNode
from providers.base import InstanceRecord, ProviderSettings
from providers.network.plugin.sdk import PLUGIN as _SHARDNET
from providers.network.plugin.sdk import RESERVATION, Provider, Reservation
from stacks.adoption import Adoption, Inputs, InstanceOf
from stacks.base import PulumiFn
from stacks.naming import PRICE_TAG, node_tags

_DECIDED_AT_CREATE = ["quoteId", "heldId", "userData", f'tags["{PRICE_TAG}"]']


class _Adoption:
    instance = InstanceOf(RESERVATION, "token")

    def instance_id(self, cell: Cell, record: InstanceRecord) -> str:
        return record.instance_id

    def shared_id(self, cell: Cell, settings: ProviderSettings, type_: str, inputs: Inputs) -> str | None:
        return None


adoption: Adoption = _Adoption()
PLUGIN = _SHARDNET
NO_CAPACITY = ("insufficient_capacity", "InsufficientCapacity", "not enough units")


def program(cell: Cell, plan: CellPlan, settings: ProviderSettings, user_data: Mapping[NodeId, str]) -> PulumiFn:
    """See ``stacks.base.Program``. Raises ConfigurationError and AuthenticationFailed."""
    if settings.endpoint is None:
        raise ConfigurationError(f"providers.{settings.name}.endpoint is missing")
    if "token" not in settings.credentials:
        raise AuthenticationFailed(f"{settings.name}: no token", next_step=f"set providers.{settings.name}.credentials")
    return partial(_declare, cell, plan, settings, user_data)


def _declare(cell: Cell, plan: CellPlan, settings: ProviderSettings, user_data: Mapping[NodeId, str]) -> None:
    provider = Provider(
        "network",
        endpoint=settings.endpoint or "",
        token=settings.credentials["token"].get_secret_value(),
        ca_file=settings.ca_file,
        timeout_seconds=settings.timeout_seconds,
    )
    nodes = {
        planned.node.id: _node(cell, planned, settings, user_data.get(planned.node.id, ""), provider)
        for planned in plan.nodes
    }
    pulumi.export("nodes", {name: {"instance_id": unit.id, "address": unit.address} for name, unit in nodes.items()})


def _node(
    cell: Cell, planned: PlannedNode, settings: ProviderSettings, user_data: str, provider: Provider
) -> Reservation:
    quote = planned.quote
    return Reservation(
        planned.node.id,
        node=planned.node.id,
        token=planned.token,
        region=cell.region,
        zone=planned.node.zone,
        instance_type=planned.node.instance_type,
        option=planned.node.option.value,
        # Our ids of a network's quotes carry the provider's name in front; the network knows only its own.
        quote_id=None if quote is None else quote.id.removeprefix(f"{settings.name}/"),
        hold_id=planned.hold,
        user_data=user_data,
        tags=node_tags(cell, planned),
        opts=pulumi.ResourceOptions(provider=provider, ignore_changes=_DECIDED_AT_CREATE),
    )
