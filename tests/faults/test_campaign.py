"""Six of the campaign's cases with real guests, and what its dice promise; `make faults` runs all of them."""

import shutil
from collections import Counter
from collections.abc import Iterator

import pytest

from engine.model.move import MovePhase
from tests.faults.campaign import Campaign, opened
from tests.faults.campaign_cases import COMBINATIONS, STATES, Case, Fault, Outcome, case, cases, table

SAMPLE = (
    Case(index=0, fault=Fault.CONTROLLER, state=MovePhase.MIRRORING, after=0.0, heal=0.3, mbps=50),
    Case(index=1, fault=Fault.CONTROLLER, state=MovePhase.COMMITTED, after=0.0, heal=0.3, mbps=50),
    Case(index=2, fault=Fault.DESTINATION_GUEST, state=MovePhase.PRECOPY, after=0.0, heal=0.3, mbps=50),
    Case(index=3, fault=Fault.SOURCE_AGENT, state=MovePhase.MIRRORING, after=0.0, heal=0.3, mbps=50),
    Case(index=5, fault=Fault.NODES_APART, state=MovePhase.PRECOPY, after=0.05, heal=1.0, mbps=50),
    Case(index=7, fault=Fault.SOURCE_GUEST, state=MovePhase.PRECOPY, after=0.0, heal=0.3, mbps=50),
)
"""The last one kills the guest, so the others need no boot between them."""


@pytest.fixture(scope="module")
def campaign() -> Iterator[Campaign]:
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("QEMU is not installed: no fault is injected into a live move")
    with opened("sample") as running:
        yield running


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.timeout(170)
@pytest.mark.parametrize("chosen", SAMPLE, ids=str)
def test_a_fault_loses_nothing_doubles_nothing_and_leaves_nothing(campaign: Campaign, chosen: Case) -> None:
    outcome = campaign.run(chosen)
    assert outcome.records > 0
    if chosen.fault is Fault.CONTROLLER:
        assert outcome.phase is MovePhase.CLEANED
    if chosen.fault in (Fault.DESTINATION_GUEST, Fault.SOURCE_GUEST):
        assert outcome.phase is MovePhase.ABORTED


def test_a_round_has_every_fault_in_every_state_once() -> None:
    for first in (0, COMBINATIONS):
        drawn = Counter((one.fault, one.state) for one in cases(7, COMBINATIONS, first))
        assert drawn == {(fault, state): 1 for fault in Fault for state in STATES}


def test_a_run_is_the_same_whether_it_is_repeated_alone_or_not() -> None:
    assert list(cases(3, 20))[13] == case(3, 13) == next(cases(3, 1, 13))
    assert [one.heal for one in cases(3, 20)] != [one.heal for one in cases(4, 20)]


def test_the_table_counts_ends_and_survivors() -> None:
    one = Outcome(
        case=SAMPLE[0], phase=MovePhase.CLEANED, downtime=0.1, gap=0.4, survived=True, settled=2.0, records=50
    )
    other = one.model_copy(update={"phase": MovePhase.ABORTED, "survived": False, "downtime": 30.0})
    assert "| kill controller | mirroring | 2 | 1 | 1 | 1 | 0.10 s | 0.40 s |" in table([one, other])
