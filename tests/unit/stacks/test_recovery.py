from datetime import UTC, datetime

import pytest

from engine.model.ids import NodeId
from engine.model.placement import Cell
from providers.base import InstanceRecord, ProviderSettings
from stacks.adoption import Inputs, InstanceOf
from stacks.recovery import clear_pending

CELL = Cell(provider="aws", kind="aws", account="1", region="r")
SETTINGS = ProviderSettings(name="aws", kind="aws", account="1", regions=("r",))
INSTANCE, NETWORK = "x:Instance", "x:Network"


class Adoption:
    instance = InstanceOf(INSTANCE, "tags")

    def __init__(self, networks: dict[str, str]) -> None:
        self.networks = networks

    def instance_id(self, cell: Cell, record: InstanceRecord) -> str:
        return f"pulumi-{record.instance_id}"

    def shared_id(self, cell: Cell, settings: ProviderSettings, type_: str, inputs: Inputs) -> str | None:
        return self.networks.get(str(inputs.get("name")))


def operation(kind: str, type_: str, name: str, inputs: dict[str, object]) -> dict[str, object]:
    return {"type": kind, "resource": {"urn": f"urn::{name}", "type": type_, "custom": True, "inputs": inputs}}


def record(token: str) -> InstanceRecord:
    return InstanceRecord(
        instance_id=f"i-{token}",
        node=NodeId("n"),
        token=token,
        region="r",
        zone="z",
        instance_type="t",
        running=True,
        launched_at=datetime(2026, 11, 23, tzinfo=UTC),
    )


def test_what_exists_is_adopted_with_its_inputs() -> None:
    tags = {"tags": {"shardwright-token": "t1"}}
    deployment = {
        "manifest": {"kept": True},
        "resources": [{"urn": "urn::vpc"}],
        "pending_operations": [
            operation("creating", INSTANCE, "made", tags),
            operation("creating", INSTANCE, "not-made", {"tags": {"shardwright-token": "t2"}}),
            operation("creating", NETWORK, "net", {"name": "known"}),
            operation("creating", NETWORK, "no-net", {"name": "unknown"}),
        ],
    }
    cleared, report = clear_pending(CELL, SETTINGS, deployment, Adoption({"known": "net-1"}), {"t1": record("t1")})
    assert report.adopted == ("urn::made", "urn::net")
    assert report.never_made == ("urn::not-made", "urn::no-net")
    assert not report.nothing_to_do
    assert cleared["pending_operations"] == []
    assert cleared["manifest"] == {"kept": True}
    assert cleared["resources"][1] == {
        "urn": "urn::made",
        "type": INSTANCE,
        "custom": True,
        "inputs": tags,
        "id": "pulumi-i-t1",
        "outputs": tags,
    }
    assert [resource.get("id") for resource in cleared["resources"]] == [None, "pulumi-i-t1", "net-1"]
    assert len(deployment["pending_operations"]) == 4, "what was exported is not changed"


@pytest.mark.parametrize("kind", ["updating", "deleting", "reading"])
def test_other_operations_are_done_again_by_the_next_update(kind: str) -> None:
    deployment = {"resources": [{"urn": "urn::n"}], "pending_operations": [operation(kind, INSTANCE, "n", {})]}
    cleared, report = clear_pending(CELL, SETTINGS, deployment, Adoption({}), {})
    assert report.cleared == ("urn::n",)
    assert cleared["resources"] == deployment["resources"]


def test_a_resource_that_is_in_the_state_already_is_not_put_there_twice() -> None:
    tags = {"tags": {"shardwright-token": "t1"}}
    pending = [operation("creating", INSTANCE, "n", tags)]
    deployment = {"resources": [{"urn": "urn::n", "id": "i"}], "pending_operations": pending}
    cleared, report = clear_pending(CELL, SETTINGS, deployment, Adoption({}), {"t1": record("t1")})
    assert cleared["resources"] == [{"urn": "urn::n", "id": "i"}]
    assert report.cleared == ("urn::n",)


def test_a_token_without_tags_is_no_token() -> None:
    assert InstanceOf(INSTANCE, "tags").token({}) is None
    assert InstanceOf(INSTANCE, "token").token({"token": "t"}) == "t"
    assert InstanceOf(INSTANCE, "tags").token({"tags": {"shardwright-token": {"ciphertext": "…"}}}) is None


def test_the_instances_that_a_state_has_are_told_by_node_with_the_providers_id() -> None:
    def resource(name: str, **more: object) -> dict[str, object]:
        return {"urn": f"urn:pulumi:s::shardwright::{INSTANCE}::{name}", "type": INSTANCE, **more}

    resources = [
        {"urn": "urn:pulumi:s::shardwright::x:Network::net", "type": NETWORK, "id": "net-1"},
        resource("n-2", id="i-2", outputs={"vmId": "v-2"}),
        resource("n-1", id="i-1", outputs={"vmId": "v-1"}),
        resource("n-1", id="i-0", outputs={"vmId": "v-0"}, delete=True),
        resource("n-3"),
    ]
    assert InstanceOf(INSTANCE, "tags").made(resources) == (("n-1", "i-1"), ("n-2", "i-2"))
    assert InstanceOf(INSTANCE, "tags", id_output="vmId").made(resources) == (("n-1", "v-1"), ("n-2", "v-2"))
