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


def _spot(depth: int) -> dict[str, Any]:
    return offer("B", "spot", "gcp/y", prices=[[-5, "0.03"]], available=[[0, depth]])


def _slow_market() -> Case:
    """Nothing arrives at once, and what has arrived must stay: leads 2 and 3, minimum stays, a commitment."""
    offers = [
        offer("A", "on_demand", lead=2, min_steps=3),
        offer(
            "B", "spot", "gcp/y", lead=3, min_steps=2, prices=[[-5, "0.03"], [4, "0.09"]], available=[[0, 4], [7, 1]]
        ),
        offer("C", "spot", "gcp/z", min_steps=4, prices=[[-5, "0.04"]], available=[[0, 2], [5, 0]]),
        offer("D", "commitment", lead=2, term=5, price="0.05"),
    ]
    swinging = [3 + step % 5 * 2 for step in range(72)]
    return case_of(document([pool("a", "gold", swinging[60:], swinging[:60])], offers))


def _five_fleets() -> Case:
    """Each unit serves some of the fleets only, in slices of its own; one fleet can buy spot alone."""
    names = [f"f{i}" for i in range(5)]
    risks = ("gold", "silver", "bronze", "gold", "bronze")
    pools = [
        pool(f"p{i}", risk, [i + step % 3 for step in range(10)], [i + step % 4 for step in range(60)], at=name)
        for i, (name, risk) in enumerate(zip(names, risks, strict=True))
    ]
    carried = {name: i + 1 for i, name in enumerate(names)}
    offers = [
        offer("A", "on_demand", shards_per_unit={name: carried[name] for name in names[:4]}),
        offer("B", "spot", "gcp/y", shards_per_unit=carried, prices=[[-5, "0.03"]], available=[[0, 3], [6, 1]]),
        offer("C", "spot", "gcp/z", shards_per_unit={"f4": 2}, prices=[[-5, "0.02"]], available=[[0, 2]]),
    ]
    return case_of(document(pools, offers, [fleet(name) for name in names]))


def _many_pools() -> Case:
    risks = ("gold", "silver", "bronze")
    pools = [
        pool(f"p{i}", risks[i % 3], [(i + step) % 4 for step in range(6)], [(i * step) % 5 for step in range(60)])
        for i in range(60)
    ]
    return case_of(document(pools, [offer("A", "on_demand"), _spot(7)]))


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
    "a slow market": _slow_market,
    "five fleets": _five_fleets,
    "a fleet of many pools": _many_pools,
    "pools of different histories": lambda: case_of(
        document([pool("a", "gold", _flat(6), _flat(60)), pool("b", "bronze", _flat(6))], [offer("A", "on_demand")])
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
