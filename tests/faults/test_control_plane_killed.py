"""``kill -9`` of the control plane in a round: it goes on where it was, and nothing is bought, made or billed twice."""

import signal

import pytest

from engine.model.ids import PlanId
from tests.faults.estate import Deployment
from tests.faults.settled import assert_nobody_left, assert_settled

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(300)]


def killed(deployment: Deployment, *points: str) -> None:
    """A control plane for each point, one after another; each takes the round on and dies there."""
    for point in points:
        run = deployment.run(die=point)
        assert run.wait() == -signal.SIGKILL, f"{point}:\n{run.said()}"


def finished(deployment: Deployment) -> None:
    run = deployment.run()
    assert run.wait() == 0, run.said()
    assert "goes on where it was interrupted" in run.said()


def target(deployment: Deployment) -> PlanId | None:
    with deployment.store() as store:
        plan = store.plans.target()
    return None if plan is None else plan.id


def test_killed_while_holding_and_after_every_act_until_it_has_paid(deployment: Deployment) -> None:
    killed(deployment, "after:negotiate")
    won = deployment.units_taken("agora")
    killed(deployment, "holding:harbor")
    assert deployment.units_taken("agora") == won > 0, "the same bids won the same units"
    assert deployment.units_taken("harbor") == 1, "it has answered, and our store does not know it yet"
    killed(deployment, "after:hold", "after:adopt")
    planned = target(deployment)
    killed(deployment, "after:confirm")
    assert deployment.units_taken("harbor") == 1
    assert deployment.instances() == []
    finished(deployment)
    assert target(deployment) == planned
    assert_settled(deployment)


def test_killed_during_pulumi_up_with_and_without_its_engines(deployment: Deployment) -> None:
    killed(deployment, "creating:harbor")
    assert_nobody_left(deployment)
    planned = target(deployment)
    before = {record.instance_id for record in deployment.instances()}
    assert before
    killed(deployment, "creating:aws:alone")
    assert before < {record.instance_id for record in deployment.instances()}
    killed(deployment, "after:grow", "after:carve")
    finished(deployment)
    assert before < {record.instance_id for record in deployment.instances()}
    assert target(deployment) == planned
    assert_settled(deployment)
