"""Shardwright's own policy."""

from decimal import Decimal

import pytest

from lab.host import Policy, play
from lab.policies.registry import policy_of
from lab.wire import FleetUnits, Init, Missed, Observe, Order
from tests.contract.policy_contract import ODD, PolicyContract
from tests.unit.lab.cases import case_of, document, offer, pool
from tests.unit.lab.generated import generated


class TestShardwright(PolicyContract):
    name = "shardwright"

    def test_constant_demand_is_served_from_the_first_step_on(self) -> None:
        """Nothing was ever short at any price of shortfall, so the lowest is chosen: it must still buy."""
        for oddity in ("no spot", "only what is slow", "one step", "long steps"):
            assert play(ODD[oddity](), self.make()).shortfall_rate == 0, oddity

    def test_where_nothing_certain_is_quick_doubtful_spot_is_not_relied_on(self) -> None:
        """Spot dries up in the slow market while more of it is awaited; relying on it left a third short."""
        assert play(ODD["a slow market"](), self.make()).shortfall_rate < 0.1

    def test_no_unit_is_given_back_before_its_time(self) -> None:
        """The slow market charges for minimum stays; the policy never pays for one."""
        assert "minimum" not in play(ODD["a slow market"](), self.make()).cost_by_kind

    def test_commitments_are_bought_where_they_are_cheap_and_used(self) -> None:
        offers = [offer("A", "on_demand", price="0.10"), offer("C", "commitment", price="0.04", term=24)]
        swinging = [10 + step % 2 for step in range(96)]
        case = case_of(document([pool("a", "gold", swinging[60:], swinging[:60])], offers))
        result = play(case, self.make())
        assert result.malformed == 0
        assert result.cost_by_kind["commitment"] >= 24 * 5 * Decimal("0.04"), "what is always needed, for one term"
        assert result.cost < play(case, policy_of("reactive")).cost

    @pytest.mark.parametrize("seed", range(5))
    def test_any_drawn_game_is_played_without_a_malformed_answer_and_the_same_again(self, seed: int) -> None:
        case = generated(seed=100 + seed, steps=20)
        first, again = (play(case, self.make()) for _ in range(2))
        assert (first.why_malformed, first.malformed, first.late) == ((), 0, 0)
        assert first == again
        assert first.shortfall_rate < 0.1

    @pytest.mark.parametrize("seed", range(3))
    def test_the_order_of_a_hosts_tables_changes_nothing(self, seed: int) -> None:
        """JSON objects have no order: another host may list what is held and denied in its own."""
        case = generated(seed=200 + seed, steps=20)
        usual = play(case, self.make(), name="same")
        assert play(case, Reversed(self.make()), name="same") == usual


class Reversed:
    """Hands every table on from its end."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def start(self, init: Init) -> Missed | None:
        return self._policy.start(init)

    def answer(self, observe: Observe) -> Order | Missed:
        def turned(units: FleetUnits) -> FleetUnits:
            return {fleet: dict(reversed(each.items())) for fleet, each in reversed(units.items())}

        tables = ("held", "pending", "attached", "delivered", "denied", "reclaimed")
        update = {name: turned(getattr(observe, name)) for name in tables}
        return self._policy.answer(observe.model_copy(update=update))
