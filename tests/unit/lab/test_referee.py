"""Two implementations of the rules that share no code come to the same."""

from decimal import Decimal

import pytest

from lab.game import Game
from lab.wire import Missed
from tests.unit.lab.generated import generated
from tests.unit.lab.referee import Referee
from tests.unit.lab.test_lab_regression import Drawn


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("minutes", [60, 5])
def test_the_game_and_its_referee_agree(seed: int, minutes: int) -> None:
    case = generated(seed, steps=30)
    offers = tuple(each.model_copy(update={"min_steps": 1 + at % 3}) for at, each in enumerate(case.offers))
    case = case.model_copy(update={"step_minutes": minutes, "offers": offers})
    game, referee, policy = Game(case), Referee(case), Drawn(seed)
    policy.start(game.init())
    while not game.over:
        order = policy.answer(game.observe())
        valid = order.step == game.now
        game.step(order if valid else Missed.MALFORMED)
        referee.step(order if valid else None)
        assert Decimal(game.tally.nano).scaleb(-9) == referee.cost, f"step {game.now}"
    assert sum(game.tally.short) == referee.short
    assert (game.tally.preemptions, game.tally.denied) == (referee.reclaimed, referee.denied)
    assert game.tally.moves == referee.moved
