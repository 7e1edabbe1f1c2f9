from lab.host import play
from tests.contract.policy_contract import PolicyContract
from tests.unit.lab.cases import case_of, document, offer, pool


class TestUniformProgress(PolicyContract):
    name = "uniform-progress"

    def test_ahead_of_the_line_it_relies_on_spot_alone(self) -> None:
        offers = [offer("A", "on_demand"), offer("B", "spot", prices=[[-1, "0.02"]], available=[[0, 9]])]
        result = play(case_of(document([pool("a", "gold", [4] * 5, [4] * 60)], offers)), self.make())
        assert set(result.cost_by_kind) == {"spot"}

    def test_behind_it_takes_on_demand(self) -> None:
        offers = [
            offer("A", "on_demand"),
            offer("B", "spot", prices=[[-1, "0.02"]], available=[[0, 9], [2, 0], [4, 9]]),
        ]
        result = play(case_of(document([pool("a", "gold", [4] * 8, [4] * 60)], offers)), self.make())
        assert result.bought[0][2] == 0
        assert all(capacity >= 4 for capacity in result.bought[0][3:])
        assert "on_demand" in result.cost_by_kind
