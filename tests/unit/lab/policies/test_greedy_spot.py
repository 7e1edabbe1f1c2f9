from lab.host import play
from tests.contract.policy_contract import PolicyContract
from tests.unit.lab.cases import case_of, document, offer, pool


class TestGreedySpot(PolicyContract):
    name = "greedy-spot"

    def test_the_cheapest_first_then_down_the_list_then_on_demand(self) -> None:
        offers = [
            offer("A", "on_demand"),
            offer("dear", "spot", prices=[[-1, "0.05"]], available=[[0, 2]]),
            offer("cheap", "spot", prices=[[-1, "0.02"]], available=[[0, 1]]),
            offer("absurd", "spot", prices=[[-1, "0.20"]], available=[[0, 9]]),
        ]
        result = play(case_of(document([pool("a", "gold", [10] * 3, [10] * 60)], offers)), self.make())
        assert result.shortfall_rate == 0
        each_step = {line[2]: line[3] / 3 for line in result.cost_lines}
        assert {name: float(cost) for name, cost in each_step.items()} == {"cheap": 0.02, "dear": 0.10, "A": 0.20}

    def test_what_comes_late_is_covered_until_it_is_there(self) -> None:
        offers = [
            offer("A", "on_demand"),
            offer("slow", "spot", lead=2, prices=[[-1, "0.02"]], available=[[0, 9]]),
        ]
        result = play(case_of(document([pool("a", "gold", [4, 8, 8, 8], [4, 4, 4, 8] * 20)], offers)), self.make())
        assert result.shortfall_rate == 0
