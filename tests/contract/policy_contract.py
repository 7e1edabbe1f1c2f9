"""What every policy owes the game. A test class inherits this and names its policy."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from lab.case import Case
from lab.host import Policy, play
from lab.policies.registry import policy_of
from lab.tally import Result
from tests.unit.lab.cases import case_of, document, fleet, offer, pool
from tests.unit.lab.generated import generated


def _flat(length: int, value: int = 5) -> list[int]:
    return [value] * length


def _depth_less() -> dict[str, Any]:
    return offer("B", "spot", prices=[[-1, "0.03"]], available=[[0, 0]])


ODD: dict[str, Callable[[], Case]] = {
    "no history": lambda: case_of(document([pool("a", "gold", _flat(6))], [offer("A", "on_demand"), _depth_less()])),
    "no spot": lambda: case_of(document([pool("a", "gold", _flat(6), _flat(60))], [offer("A", "on_demand")])),
    "no on-demand": lambda: case_of(document([pool("a", "gold", _flat(6), _flat(60))], [_depth_less()])),
    "only what is slow": lambda: case_of(
        document([pool("a", "gold", _flat(6), _flat(60))], [offer("A", "on_demand", lead=3)])
    ),
    "no demand": lambda: case_of(document([pool("a", "gold", _flat(6, 0), _flat(60, 0))], [offer("A", "on_demand")])),
    "one step": lambda: case_of(document([pool("a", "gold", [5], _flat(3))], [offer("A", "on_demand"), _depth_less()])),
    "a fleet without pools": lambda: case_of(
        document([pool("a", "gold", _flat(4))], [offer("A", "on_demand")], [fleet("web"), fleet("app")])
    ),
    "long steps": lambda: case_of(
        document([pool("a", "gold", _flat(4), _flat(9))], [offer("A", "on_demand")], step_minutes=2880)
    ),
}


@cache
def _played(name: str) -> Result:
    return play(generated(), policy_of(name), name=name)


class PolicyContract:
    name: str

    def make(self) -> Policy:
        return policy_of(self.name)

    @pytest.fixture
    def result(self) -> Result:
        return _played(self.name)

    def test_every_answer_is_well_formed(self, result: Result) -> None:
        assert result.why_malformed == ()
        assert (result.malformed, result.late) == (0, 0)

    def test_the_same_game_is_played_the_same(self, result: Result) -> None:
        assert play(generated(), self.make(), name=self.name) == result

    @pytest.mark.parametrize("oddity", ODD)
    def test_an_odd_case_is_played_through(self, oddity: str) -> None:
        result = play(ODD[oddity](), self.make())
        assert (result.why_malformed, result.malformed) == ((), 0)

    def test_it_knows_nothing_of_what_is_to_come(self, result: Result) -> None:
        """Another future from step 48 on changes nothing that was bought before it."""
        case = generated()
        half = 48
        pools = tuple(
            each.model_copy(update={"demand": (*each.demand[:half], *(n * 3 for n in each.demand[half:]))})
            for each in case.pools
        )
        other = play(case.model_copy(update={"pools": pools}), self.make())
        assert [path[: half + 1] for path in other.bought] == [path[: half + 1] for path in result.bought]
