"""Cells brought up, kept, changed, refused and taken down by the real engine."""

from decimal import Decimal
from pathlib import Path

import httpx
import pytest

from engine.errors import ConcurrentUpdate, InsufficientCapacity, PolicyViolation, ProviderError
from engine.model.ids import NodeId, QuoteId
from engine.model.placement import Cell
from engine.model.plan import CellPlan, Plan
from policies.pack_config import pack_config
from policies.rules import Limits
from stacks.base import ResourceChanges
from stacks.driver import PolicyPack
from stacks.events import StepEvent, StepState
from tests.e2e.stacks.sandbox_cells import (
    AWS,
    AZURE,
    GCP,
    HARBOR,
    ROOT,
    Cloud,
    MakeDriver,
    bought,
    cell_plan,
    kept,
    user_data,
)
from tests.e2e.stacks.test_stacks_side_by_side import plan_of


def configured_pack(limits: Limits) -> PolicyPack:
    def configure(plan: CellPlan) -> str:
        return pack_config(limits, None, plan.cell)

    return PolicyPack(ROOT / "policies", configure)


@pytest.mark.parametrize("cell", [AWS, GCP, AZURE, HARBOR], ids=lambda cell: cell.kind)
def test_a_cell_lives_through_its_rounds(cell: Cell, make_driver: MakeDriver, cloud: Cloud) -> None:
    """Two nodes are bought, kept in the next round (without quote and user data), then one leaves."""
    driver = make_driver()
    first, second = (bought(cell, f"life-{cell.kind}-{n}", cloud, spot=n == 1) for n in (1, 2))
    try:
        up = driver.up(cell_plan(cell, first, second), user_data(first, second))
        assert up.changes.create > 0
        running = {found.node: found for found in cloud.instances(cell.provider)}
        assert dict(up.nodes) == {name: found.instance_id for name, found in running.items()}
        assert driver.made(cell) == up.nodes
        assert running[first.node.id].user_data == user_data(first)[first.node.id]
        assert running[first.node.id].spot is (cell is not HARBOR)

        again = driver.up(cell_plan(cell, kept(first), kept(second), generation=2), {})
        assert again.changes == ResourceChanges(same=up.changes.create)

        less = driver.up(cell_plan(cell, kept(second), generation=3), {})
        assert less.changes.delete >= 1
        assert less.changes.create == less.changes.update == less.changes.replace == 0
        assert [found.node for found in cloud.instances(cell.provider)] == [second.node.id]
    finally:
        driver.destroy(cell)
    assert cloud.instances(cell.provider) == []


def test_a_stale_generation_changes_nothing(make_driver: MakeDriver, cloud: Cloud) -> None:
    driver = make_driver()
    node = bought(HARBOR, "stale-1", cloud)
    try:
        driver.up(cell_plan(HARBOR, node, generation=5), user_data(node))
        with pytest.raises(ConcurrentUpdate, match="generation 4 is stale"):
            driver.up(cell_plan(HARBOR, generation=4), {})
        assert [found.node for found in cloud.instances("harbor")] == ["stale-1"]
    finally:
        driver.destroy(HARBOR)


def test_the_pack_lets_our_own_programs_pass(make_driver: MakeDriver, cloud: Cloud) -> None:
    limits = Limits(regions=(AWS.region,), instance_families=("m7i",), hourly_budget=Decimal(1))
    driver = make_driver(policy_pack=configured_pack(limits))
    outcome = driver.preview(cell_plan(AWS, bought(AWS, "passes-1")), {})
    assert outcome.changes.create > 0
    assert outcome.findings == ()
    assert cloud.instances("aws") == []


def test_a_violation_is_named_and_blocks(make_driver: MakeDriver, cloud: Cloud) -> None:
    limits = Limits(regions=("eu-west-1",), max_spot_share=0.5, hourly_budget=Decimal("0.01"))
    driver = make_driver(policy_pack=configured_pack(limits))
    plan = cell_plan(AWS, bought(AWS, "refused-1", spot=True))
    try:
        with pytest.raises(PolicyViolation) as seen_before:
            driver.preview(plan, user_data(*plan.nodes))
        assert "region us-east-1 is not one of eu-west-1" in seen_before.value.why
        assert "the plan costs 0.05 USD an hour, the budget is 0.01" in seen_before.value.why
        with pytest.raises(PolicyViolation, match="allowed-regions"):
            driver.up(plan, user_data(*plan.nodes))
        assert cloud.instances("aws") == []
    finally:
        driver.destroy(AWS)


def test_the_pack_leaves_a_node_on_its_way_out_out_of_the_budget(make_driver: MakeDriver) -> None:
    cell = cell_plan(AWS, bought(AWS, "leaves-1"), bought(AWS, "comes-1"))
    plan = plan_of(cell)
    limits = Limits(hourly_budget=Decimal("0.06"))

    def preview(whole: Plan) -> None:
        pack = PolicyPack(ROOT / "policies", lambda judged: pack_config(limits, whole, judged.cell))
        make_driver(policy_pack=pack).preview(cell, {})

    preview(plan.model_copy(update={"leaving": (NodeId("leaves-1"),)}))
    with pytest.raises(PolicyViolation, match=r"the plan costs 0\.10 USD an hour, the budget is 0\.06"):
        preview(plan)


def test_no_capacity_is_said_as_such(make_driver: MakeDriver, cloud: Cloud) -> None:
    driver = make_driver()
    node = bought(GCP, "nowhere-1")
    endpoint = cloud.settings["gcp"].endpoint
    httpx.post(f"{endpoint}/_sandbox/fault", json={"mode": "no_capacity", "seconds": 60}).raise_for_status()
    try:
        with pytest.raises(InsufficientCapacity, match="ZONE_RESOURCE_POOL_EXHAUSTED") as denied:
            driver.up(cell_plan(GCP, node), user_data(node))
        assert denied.value.nodes == ("nowhere-1",)
    finally:
        httpx.post(f"{endpoint}/_sandbox/fault", json={"mode": "none", "seconds": 0}).raise_for_status()
        driver.destroy(GCP)


def test_what_was_made_beside_a_node_that_cannot_be_had_is_told(make_driver: MakeDriver, cloud: Cloud) -> None:
    driver = make_driver()
    node, other = bought(HARBOR, "sibling-1", cloud), bought(HARBOR, "sibling-2", cloud)
    assert other.quote is not None
    refused = other.model_copy(update={"quote": other.quote.model_copy(update={"id": QuoteId("harbor/unknown")})})
    try:
        with pytest.raises(ProviderError, match="the update failed"):
            driver.up(cell_plan(HARBOR, node, refused), user_data(node, refused))
        (running,) = cloud.instances("harbor")
        assert driver.made(HARBOR) == ((node.node.id, running.instance_id),)
    finally:
        driver.destroy(HARBOR)
    assert driver.made(HARBOR) == ()


def test_what_was_taken_back_is_seen_as_drift(make_driver: MakeDriver, cloud: Cloud) -> None:
    driver = make_driver()
    node = bought(HARBOR, "drifts-1", cloud)
    try:
        up = driver.up(cell_plan(HARBOR, node), user_data(node))
        settings = cloud.settings["harbor"]
        token = settings.credentials["token"].get_secret_value()
        gone = f"{settings.endpoint}/v1/reservations/{dict(up.nodes)[node.node.id]}"
        httpx.delete(gone, headers={"Authorization": f"Bearer {token}"}).raise_for_status()
        assert driver.refresh(HARBOR).delete == 1
        assert driver.up(cell_plan(HARBOR, generation=2), {}).changes.none
    finally:
        driver.destroy(HARBOR)


def test_secrets_stay_secret_and_steps_are_told(make_driver: MakeDriver, cloud: Cloud, tmp_path: Path) -> None:
    steps: list[StepEvent] = []
    driver = make_driver(on_event=steps.append)
    node = bought(HARBOR, "quiet-1", cloud)
    try:
        driver.up(cell_plan(HARBOR, node), user_data(node))
        told = [(step.op, step.state) for step in steps if step.name == "quiet-1"]
        assert told == [("create", StepState.STARTED), ("create", StepState.DONE)]
        files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
        assert any(b"quiet-1" in content for content in files)
        for secret in (b"join-token-of", b"stacks-test-secret", b"stacks-test-passphrase"):
            assert not any(secret in content for content in files)
    finally:
        driver.destroy(HARBOR)
