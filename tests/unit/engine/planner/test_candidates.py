"""What is left out before solving changes no optimum."""

from datetime import timedelta

import pytest

from engine.model.market import PurchaseOption
from engine.planner.candidates import find_candidates, loss_within
from engine.planner.need import read_needs
from engine.planner.policy import PlanPolicy
from engine.planner.screening import Screen
from tests.unit.engine.planner.cases import CELLS, NOW, certain, offer, pool, quote


def _found(*quotes, policy: PlanPolicy | None = None) -> list[str]:
    policy = policy or PlanPolicy()
    needs = read_needs(policy, [certain(pool(), 4)])
    screen = Screen(policy, needs, {cell.id: cell for cell in CELLS})
    found = find_candidates(policy, needs, screen, quotes, NOW)
    return [candidate.quote.offer.id for candidate in found.candidates]


def test_a_quote_beaten_in_everything_is_left_out() -> None:
    assert _found(quote(offer("cheap", "0.05")), quote(offer("dear", "0.06"))) == ["cheap"]


def test_but_not_where_the_better_one_is_scarce() -> None:
    assert _found(quote(offer("cheap", "0.05"), quantity=2), quote(offer("dear", "0.06"))) == ["cheap", "dear"]


def test_nor_where_they_differ_in_what_counts() -> None:
    cheap = quote(offer("cheap", "0.05"))
    assert _found(cheap, quote(offer("elsewhere", "0.06", cell=CELLS[1]))) == ["cheap", "elsewhere"]
    assert _found(cheap, quote(offer("larger", "0.06", vcpus=4, memory=16))) == ["cheap", "larger"]
    spot = quote(offer("spot", "0.01", option=PurchaseOption.SPOT), survival=0.9)
    assert _found(cheap, spot) == ["spot", "cheap"]


def test_only_the_cheapest_groups_that_may_be_reclaimed_are_weighed() -> None:
    spots = [
        quote(
            offer(f"s{i:02d}", f"{0.01 + i / 1000:.3f}", option=PurchaseOption.SPOT, instance_type=f"t{i}"),
            survival=0.9,
        )
        for i in range(20)
    ]
    assert _found(*spots) == [f"s{i:02d}" for i in range(8)]


def test_survival_is_taken_at_the_quotes_own_hazard() -> None:
    day = quote(offer("spot", "0.01", option=PurchaseOption.SPOT), survival=0.5)
    assert loss_within(day, 24) == pytest.approx(0.5)
    assert loss_within(day, 48) == pytest.approx(0.75)
    assert loss_within(quote(offer("od", "0.01")), 1000) == 0


def test_lapsed_quotes_are_not_candidates() -> None:
    lapsed = quote(offer("o", "0.05")).model_copy(update={"expires_at": NOW - timedelta(seconds=1)})
    assert _found(lapsed) == []
