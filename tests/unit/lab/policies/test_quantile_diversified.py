import pytest

from lab.host import play
from tests.contract.policy_contract import PolicyContract
from tests.unit.lab.cases import case_of, document, offer, pool


class TestQuantileDiversified(PolicyContract):
    name = "quantile-diversified"

    def test_it_commits_to_what_was_always_used(self) -> None:
        offers = [offer("A", "on_demand"), offer("C", "commitment", price="0.06", term=4)]
        steady = play(case_of(document([pool("a", "gold", [8] * 4, [8] * 60)], offers)), self.make())
        assert {kind: float(cost) for kind, cost in steady.cost_by_kind.items()} == {"commitment": 0.96}

    def test_it_does_not_commit_to_what_is_used_too_seldom(self) -> None:
        offers = [offer("A", "on_demand"), offer("C", "commitment", price="0.06", term=4)]
        seldom = play(case_of(document([pool("a", "gold", [8, 0, 0, 8], [8, 0, 0, 0] * 15)], offers)), self.make())
        assert "commitment" not in seldom.cost_by_kind

    def test_no_group_carries_more_than_a_quarter(self) -> None:
        spot = [offer(f"B{n}", "spot", f"aws/{n}", prices=[[-1, f"0.0{n}"]], available=[[0, 99]]) for n in range(2, 8)]
        data = document([pool("a", "gold", [16] * 3, [16] * 60)], [offer("A", "on_demand"), *spot])
        result = play(case_of(data), self.make())
        cost = {line[2]: float(line[3]) / 3 for line in result.cost_lines}
        assert cost == pytest.approx({"B2": 0.04, "B3": 0.06, "B4": 0.08, "B5": 0.10})
