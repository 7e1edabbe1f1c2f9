from lab.host import play
from tests.contract.policy_contract import PolicyContract
from tests.unit.lab.cases import case_of, document, offer, pool


class TestReactive(PolicyContract):
    name = "reactive"

    def test_a_load_that_never_rose_gets_no_headroom(self) -> None:
        data = document([pool("a", "gold", [6, 4, 4], [6] * 60)], [offer("A", "on_demand")])
        assert play(case_of(data), self.make()).bought == ((6, 6, 4),)

    def test_headroom_is_the_rise_that_the_history_knows(self) -> None:
        data = document([pool("a", "gold", [4], [4, 8] * 30)], [offer("A", "on_demand")])
        assert play(case_of(data), self.make()).bought == ((12,),)
