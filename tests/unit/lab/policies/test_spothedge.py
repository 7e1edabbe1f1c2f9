from lab.host import play
from tests.contract.policy_contract import PolicyContract
from tests.unit.lab.cases import case_of, document, offer, pool


def spot(name: str, cell: str, price: str, *available: list[int]) -> dict[str, object]:
    return offer(name, "spot", cell, prices=[[-1, price]], available=list(available))


class TestSpotHedge(PolicyContract):
    name = "spothedge"

    def test_it_spreads_over_zones_then_fills_the_cheapest(self) -> None:
        offers = [
            offer("A", "on_demand"),
            spot("one", "aws/x", "0.02", [0, 9]),
            spot("two", "gcp/y", "0.03", [0, 9]),
            spot("three", "azure/z", "0.04", [0, 9]),
        ]
        result = play(case_of(document([pool("a", "gold", [10] * 2, [10] * 60)], offers)), self.make())
        cost = {line[2]: float(line[3]) for line in result.cost_lines}
        # 10 + 20 % = 6 units: one in each zone, three more in the cheapest; on-demand stands in for the first step.
        assert cost["one"] == 0.02 * 4 * 2
        assert cost["two"] == 0.03 * 2
        assert cost["three"] == 0.04 * 2
        assert cost["A"] == 0.5

    def test_a_zone_that_took_units_back_is_left_alone(self) -> None:
        offers = [
            offer("A", "on_demand"),
            spot("one", "aws/x", "0.02", [0, 9], [2, 0], [3, 9]),
            spot("two", "gcp/y", "0.03", [0, 9]),
            spot("three", "azure/z", "0.04", [0, 9]),
        ]
        result = play(case_of(document([pool("a", "gold", [10] * 6, [10] * 60)], offers)), self.make())
        cost = {line[2]: float(line[3]) for line in result.cost_lines}
        assert cost["one"] == 0.02 * 4 * 2
