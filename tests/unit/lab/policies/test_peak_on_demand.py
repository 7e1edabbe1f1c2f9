from lab.host import play
from tests.contract.policy_contract import PolicyContract
from tests.unit.lab.cases import case_of, document, offer, pool
from tests.unit.lab.generated import generated


class TestPeakOnDemand(PolicyContract):
    name = "peak-on-demand"

    def test_it_never_gives_back(self) -> None:
        for path in play(generated(), self.make()).bought:
            assert list(path) == sorted(path)

    def test_it_starts_at_the_peak_of_the_history(self) -> None:
        data = document([pool("a", "gold", [1, 1], [2, 9, 2])], [offer("A", "on_demand")])
        assert play(case_of(data), self.make()).bought == ((10, 10),)
