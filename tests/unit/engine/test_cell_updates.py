from collections.abc import Callable, Mapping

import pytest

from engine.cell_updates import CellUpdates
from engine.errors import (
    AuthenticationFailed,
    ConcurrentUpdate,
    MissingPart,
    PolicyViolation,
    ProviderError,
    ShardwrightError,
)
from engine.model.ids import NodeId
from engine.model.placement import Cell
from engine.model.plan import CellPlan, Plan
from engine.reconcile import CellFailure
from providers.base import SupportsInventory
from stacks.base import CellOutcome, PolicyFinding, ResourceChanges
from tests.sample_view import SampleView

DOWN = ProviderError("aws: the update failed", why="503")
ADVICE = PolicyFinding(policy="spot-share", pack="shardwright", level="advisory", urn="", message="much spot")


class Driver:
    """Previews as ``acts`` say, by provider; whoever is not named is fine, and gets one piece of advice."""

    def __init__(self, **acts: ShardwrightError) -> None:
        self.acts = acts
        self.interrupted: set[str] = set()
        self.unreadable: set[str] = set()

    def preview(self, plan: CellPlan, user_data: Mapping[NodeId, str]) -> CellOutcome:
        if plan.cell.provider in self.acts:
            raise self.acts[plan.cell.provider]
        return CellOutcome(cell=plan.cell, generation=2, changes=ResourceChanges(), findings=(ADVICE,))

    up = preview

    def made(self, cell: Cell) -> tuple[tuple[NodeId, str], ...]:
        if cell.provider in self.unreadable:
            raise ProviderError(f"{cell.id}: the state cannot be read")
        return ((NodeId(f"of-{cell.provider}"), "i-1"),)

    def destroy(self, cell: Cell) -> None:
        raise AssertionError("nothing is destroyed here")

    def needs_recovery(self, cell: Cell) -> bool:
        return cell.provider in self.interrupted

    def recover(self, cell: Cell, provider: SupportsInventory) -> object:
        raise AssertionError("there is nothing to recover with")


def the_plan() -> Plan:
    """Its AWS cell keeps a node, its other cells buy one each."""
    plan = SampleView().plan()
    assert plan is not None
    return plan


def judged_by(driver: Driver, judging: Callable[[Plan], None] = lambda _: None) -> CellUpdates:
    return CellUpdates(driver, {}, max_workers=2, judging=judging)


def test_advice_is_passed_on_and_the_pack_is_told_the_whole_plan() -> None:
    told: list[Plan] = []
    judgement = judged_by(Driver(), told.append).judge(the_plan(), {})
    assert judgement.findings == (ADVICE,) * 5
    assert judgement.unseen == ()
    assert told == [the_plan()]


def test_a_provider_that_fails_where_nothing_is_bought_stops_nobody() -> None:
    judgement = judged_by(Driver(aws=DOWN)).judge(the_plan(), {})
    assert [(failure.cell.provider, failure.why) for failure in judgement.unseen] == [("aws", "503")]
    assert len(judgement.findings) == 4


def test_nor_does_one_that_refuses_the_token_where_nothing_is_bought() -> None:
    expired = AuthenticationFailed("aws: the token has expired")
    (unseen,) = judged_by(Driver(aws=expired)).judge(the_plan(), {}).unseen
    assert (unseen.cell.provider, unseen.kind) == ("aws", "AuthenticationFailed")
    with pytest.raises(AuthenticationFailed):
        judged_by(Driver(gcp=expired)).judge(the_plan(), {})


def test_nor_does_one_whose_interrupted_update_cannot_be_looked_at() -> None:
    driver = Driver()
    driver.interrupted = {"aws"}
    assert [failure.cell.provider for failure in judged_by(driver).judge(the_plan(), {}).unseen] == ["aws"]


def test_where_something_is_bought_unseen_it_stops_the_round() -> None:
    with pytest.raises(ProviderError, match="gcp: the update failed"):
        judged_by(Driver(gcp=ProviderError("gcp: the update failed"))).judge(the_plan(), {})


def test_so_does_what_does_not_pass_by_itself() -> None:
    with pytest.raises(MissingPart):
        judged_by(Driver(aws=MissingPart("no engine"))).judge(the_plan(), {})


def test_an_update_that_still_runs_stops_nobody_where_nothing_is_bought() -> None:
    locked = ConcurrentUpdate("aws: an update is still running", why="process 7 on elsewhere", next_step="cancel it")
    (unseen,) = judged_by(Driver(aws=locked)).judge(the_plan(), {}).unseen
    assert (unseen.cell.provider, unseen.why, unseen.next_step) == ("aws", "process 7 on elsewhere", "cancel it")
    with pytest.raises(ConcurrentUpdate):
        judged_by(Driver(gcp=ConcurrentUpdate("gcp: an update is still running"))).judge(the_plan(), {})


def test_a_violation_anywhere_stops_it_and_names_all() -> None:
    refused = {name: PolicyViolation(f"{name}: refused", why=f"{name}: no") for name in ("aws", "gcp")}
    with pytest.raises(PolicyViolation) as caught:
        judged_by(Driver(**refused, azure=DOWN)).judge(the_plan(), {})
    assert "aws/123456789012/us-east-1" in caught.value.what
    assert "gcp/shardwright-sandbox/europe-west1" in caught.value.what
    assert caught.value.why == "aws: no; gcp: no"
    assert "nothing was bought" in caught.value.next_step


def test_an_update_that_fails_tells_what_it_has_made() -> None:
    """Else a node that cannot be had strands those that run beside it."""
    driver = Driver(aws=DOWN, gcp=PolicyViolation("gcp: refused"), azure=ConcurrentUpdate("locked"))
    driver.unreadable = {"azure"}
    results = judged_by(driver).run(the_plan(), {})
    failures = [result for result in results if isinstance(result, CellFailure)]
    assert {failure.cell.provider: failure.nodes for failure in failures} == {
        "aws": (("of-aws", "i-1"),),
        "gcp": (("of-gcp", "i-1"),),
        "azure": (),
    }
    assert len(results) == len(the_plan().cells)
