"""The program of a plain ``pulumi preview`` or ``pulumi up`` in this repository: one cell of a plan.

    shardwright plan --output json > plan.json
    pulumi stack init aws-us-east-1
    pulumi config set plan plan.json
    pulumi config set cell aws/123456789012/us-east-1
    pulumi config set settings aws.json
    pulumi up

Credentials of the clouds are their own, from the usual environment variables and files; that of a third-party network
is the secret ``networkToken``. User data (what a new node runs at its start) is the secret ``userData``, a JSON object
by node id.
"""

from pathlib import Path
from typing import Literal

import pulumi
from pydantic import SecretStr, TypeAdapter, ValidationError

from engine.errors import UsageError
from engine.model.ids import NodeId
from engine.model.plan import CellPlan, Plan
from engine.model.value import Value
from providers.base import ProviderSettings
from stacks.registry import program_for


class PlanDocument(Value):
    """What ``shardwright plan --output json`` prints."""

    schema_version: Literal[1]
    kind: Literal["plan"]
    data: Plan


_USER_DATA: TypeAdapter[dict[str, str]] = TypeAdapter(dict[str, str])


def _read(kind: str, path: str) -> bytes:
    """Relative paths start at the folder of Pulumi.yaml."""
    file = Path(pulumi.runtime.get_root_directory() or ".") / path
    try:
        return file.read_bytes()
    except OSError as problem:
        raise UsageError(f"shardwright:{kind}: cannot read {file}", why=problem.strerror or "") from problem


def _cell_plan(plan: Plan, wanted: str) -> CellPlan:
    found = next((cell for cell in plan.cells if cell.cell.id == wanted), None)
    if found is None:
        known = ", ".join(cell.cell.id for cell in plan.cells)
        raise UsageError(f"shardwright:cell: the plan has no cell {wanted!r}", why=f"it has {known or 'none'}")
    return found


def _settings(content: bytes, network_token: str | None) -> ProviderSettings:
    """Credentials in the file would be plain text on disk, so they are refused."""
    settings = ProviderSettings.model_validate_json(content)
    if settings.credentials:
        raise UsageError("shardwright:settings: credentials do not belong into this file")
    credentials = {"token": SecretStr(network_token)} if network_token else {}
    return settings.model_copy(update={"credentials": credentials})


def declare() -> None:
    config = pulumi.Config("shardwright")
    try:
        document = PlanDocument.model_validate_json(_read("plan", config.require("plan")))
        plan = _cell_plan(document.data, config.require("cell"))
        settings = _settings(_read("settings", config.require("settings")), config.get("networkToken"))
        user_data = _USER_DATA.validate_json(config.get("userData") or "{}")
    except ValidationError as problem:
        first = problem.errors(include_input=False, include_url=False)[0]
        raise UsageError(f"{problem.title}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    nodes = {NodeId(name): text for name, text in user_data.items()}
    program_for(plan.cell.kind)(plan.cell, plan, settings, nodes)()


declare()
