import pytest

from engine.errors import ConfigurationError
from engine.market import strategies
from engine.market.strategies import open_strategies


def test_all_of_ours_by_default() -> None:
    opened = {strategy.name for strategy in open_strategies()}
    assert {"fixed_price", "spot", "auction"} <= opened


def test_by_name_in_the_given_order() -> None:
    assert [strategy.name for strategy in open_strategies(["spot", "fixed_price"])] == ["spot", "fixed_price"]
    assert open_strategies([]) == ()


def test_an_unknown_name_is_told_with_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match=r"haggle.*known: auction, fixed_price"):
        open_strategies(["haggle"])


def test_anybody_can_register_one(monkeypatch: pytest.MonkeyPatch) -> None:
    class Point:
        name, value = "theirs", "engine.market.spot:SpotStrategy"

    class Impostor:
        name, value = "auction", "nowhere:Nothing"

    monkeypatch.setattr(
        strategies, "entry_points", lambda group: [Point, Impostor] if group == strategies.GROUP else []
    )
    assert [type(strategy).__name__ for strategy in open_strategies(["theirs", "auction"])] == [
        "SpotStrategy",
        "AuctionStrategy",
    ]
