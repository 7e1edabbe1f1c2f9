"""What an interrupted update left in the state, brought back in line with the provider. Pure but for the lookups."""

from collections.abc import Mapping
from typing import Any

from engine.model.placement import Cell
from engine.model.value import Value
from providers.base import InstanceRecord, ProviderSettings
from stacks.adoption import Adoption

State = Mapping[str, Any]
"""The ``deployment`` of an exported stack."""


class RecoveryReport(Value):
    """URNs by what became of them."""

    cell: Cell
    adopted: tuple[str, ...] = ()
    """Created before the crash, in the state now."""
    never_made: tuple[str, ...] = ()
    """Begun, but the provider knows nothing of them: the next update creates them."""
    cleared: tuple[str, ...] = ()
    """Updates, deletions and reads that the next update does again."""

    @property
    def nothing_to_do(self) -> bool:
        return not (self.adopted or self.never_made or self.cleared)


def clear_pending(
    cell: Cell,
    settings: ProviderSettings,
    deployment: State,
    adoption: Adoption,
    records: Mapping[str, InstanceRecord],
) -> tuple[dict[str, Any], RecoveryReport]:
    """The deployment without pending operations; ``records``: the provider's instances by token.

    A pending creation whose resource exists joins the resources, with its inputs for outputs until it is read back.
    """
    adopted, never_made, cleared = [], [], []
    resources = list(deployment.get("resources") or [])
    known = {resource["urn"] for resource in resources if not resource.get("delete")}
    for operation in deployment.get("pending_operations") or []:
        resource, urn = operation["resource"], operation["resource"]["urn"]
        if operation["type"] != "creating" or urn in known:
            cleared.append(urn)
            continue
        found = _existing_id(cell, settings, resource, adoption, records)
        if found is None:
            never_made.append(urn)
            continue
        resources.append({**resource, "id": found, "outputs": dict(resource.get("inputs") or {})})
        adopted.append(urn)
    report = RecoveryReport(cell=cell, adopted=tuple(adopted), never_made=tuple(never_made), cleared=tuple(cleared))
    return {**deployment, "resources": resources, "pending_operations": []}, report


def _existing_id(
    cell: Cell,
    settings: ProviderSettings,
    resource: State,
    adoption: Adoption,
    records: Mapping[str, InstanceRecord],
) -> str | None:
    inputs = resource.get("inputs") or {}
    if resource["type"] != adoption.instance.type:
        return adoption.shared_id(cell, settings, resource["type"], inputs)
    token = adoption.instance.token(inputs)
    record = records.get(token) if token is not None else None
    return None if record is None else adoption.instance_id(cell, record)
