from lab.host import play
from tests.contract.policy_contract import PolicyContract
from tests.unit.lab.cases import case_of, document, offer, pool


class TestKarpenterBalanced(PolicyContract):
    name = "karpenter-balanced"

    def replaced(self, price: str) -> bool:
        """Whether on-demand units are given up for spot that gets cheap at step 1."""
        offers = [
            offer("A", "on_demand"),
            offer("B", "spot", prices=[[-1, "0.20"], [1, price]], available=[[0, 9]]),
        ]
        result = play(case_of(document([pool("a", "gold", [8] * 4, [8] * 60)], offers)), self.make())
        assert result.shortfall_rate == 0
        return "spot" in result.cost_by_kind

    def test_a_saving_of_more_than_half_is_worth_the_disruption(self) -> None:
        assert self.replaced("0.04")

    def test_a_smaller_one_is_not(self) -> None:
        assert not self.replaced("0.06")

    def test_spot_is_not_replaced_by_spot_from_a_narrow_choice(self) -> None:
        offers = [
            offer("A", "on_demand"),
            offer("B", "spot", prices=[[-1, "0.05"]], available=[[0, 9]]),
            offer("C", "spot", "gcp/y", prices=[[-1, "0.09"], [1, "0.01"]], available=[[0, 9]]),
        ]
        result = play(case_of(document([pool("a", "gold", [8] * 4, [8] * 60)], offers)), self.make())
        assert {line[2] for line in result.cost_lines} == {"B"}

    def test_an_empty_unit_goes(self) -> None:
        data = document([pool("a", "gold", [8, 4, 4, 4], [8] * 60)], [offer("A", "on_demand")])
        assert play(case_of(data), self.make()).bought == ((8, 8, 4, 4),)
