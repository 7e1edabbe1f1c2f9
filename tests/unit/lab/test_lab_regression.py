"""A small drawn case, played by everybody: the gate that tells when the game, the bound or a baseline has changed."""

import random
from decimal import Decimal
from typing import Any

import pytest

from lab.bound import clairvoyant_bound
from lab.experiment import LabReport, run_lab
from lab.host import play
from lab.policies.registry import BASELINES, policy_of
from lab.wire import Observe, Order
from tests.unit.lab.generated import generated


class Drawn:
    """Orders at random, to reach every rule: targets, fallback, bids, commitments, nonsense."""

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)

    def start(self, init: Any) -> None:
        self._init = init

    def answer(self, observe: Observe) -> Order:
        draw = self._draw
        targets: dict[str, dict[str, int]] = {}
        fallback: dict[str, tuple[str, ...]] = {}
        for fleet in self._init.fleets:
            fitting = [o for o in self._init.offers if fleet.id in o.shards_per_unit and o.option != "commitment"]
            targets[fleet.id] = {o.id: draw.randint(0, 6) for o in draw.sample(fitting, 6)}
            quick = [o.id for o in fitting if o.lead == 1]
            fallback[fleet.id] = tuple(draw.sample(quick, 2)) if draw.random() < 0.5 else ()
        spot = [o.id for o in self._init.offers if o.option == "spot"]
        bids = {name: Decimal(draw.randint(5, 40)) / 100 for name in draw.sample(spot, 3)}
        commitments = [o for o in self._init.offers if o.option == "commitment"]
        commit: list[dict[str, Any]] = []
        if draw.random() < 0.1:
            chosen = draw.choice(commitments)
            commit = [{"fleet": next(iter(chosen.shards_per_unit)), "offer": chosen.id, "units": 1}]
        step = observe.step if draw.random() < 0.95 else observe.step + 1
        return Order.model_validate(
            {"step": step, "targets": targets, "fallback": fallback, "bids": bids, "commit": tuple(commit)}
        )


def test_drawn_orders_cost_what_they_always_did() -> None:
    result = play(generated(), Drawn(1))
    assert result.cost == Decimal("853.8424")
    assert (result.preemptions, result.denied, result.moves, result.malformed) == (18, 756, 2636, 3)


@pytest.fixture(scope="module")
def report() -> LabReport:
    return run_lab([generated()], list(BASELINES))


KNOWN = {
    "peak-on-demand": (3.536, True),
    "reactive": (2.578, True),
    "predictive-scale-out": (2.480, True),
    "seasonal-quantile": (2.525, True),
    "greedy-spot": (1.398, False),
    "spothedge": (1.959, True),
    "uniform-progress": (2.085, False),
    "karpenter-balanced": (1.390, False),
    "quantile-diversified": (1.466, True),
}
"""Cost / bound of each baseline, and whether it keeps the risk."""


@pytest.mark.parametrize("policy", BASELINES)
def test_a_baseline_stands_where_it_stood(report: LabReport, policy: str) -> None:
    ratio, kept = KNOWN[policy]
    played = report.cases[0].of(policy)
    assert played.cost_to_bound == pytest.approx(ratio, rel=0.01)
    assert played.result.keeps_risk == kept


def test_the_bound_stands_where_it_stood() -> None:
    assert float(clairvoyant_bound(generated()).cost) == pytest.approx(208.975373, rel=1e-6)


def test_the_best_baseline_is_the_cheapest_that_keeps_the_risk(report: LabReport) -> None:
    case = report.cases[0]
    keeping = [each for each in case.played if each.result.keeps_risk]
    assert case.best_baseline == min(keeping, key=lambda each: each.result.cost).policy
    assert case.to_best(str(case.best_baseline)) == 1.0
    assert all(each.result.cost >= case.bound.cost for each in keeping)


def test_our_policy_stands_where_it_stood(report: LabReport) -> None:
    """It keeps the risk. The best baseline is cheaper on this short case: four days, little time to learn."""
    case = generated()
    result = play(case, policy_of("shardwright"))
    ratio = result.cost / report.cases[0].bound.cost
    assert result.keeps_risk
    assert float(ratio) == pytest.approx(1.490, rel=0.01)
    assert report.cases[0].best_baseline == "quantile-diversified"
    assert float(ratio) / KNOWN["quantile-diversified"][0] < 1.02
