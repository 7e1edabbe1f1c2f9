"""Plays a case with a policy in this process."""

from collections.abc import Callable
from typing import Protocol

from lab.case import Case
from lab.game import Game
from lab.tally import Result
from lab.wire import End, Init, Missed, Observe, Order


class Policy(Protocol):
    """``start`` once with what is known before step 0; then an order for each ``observe``.

    A policy that could not answer says ``Missed``: the previous order stands.
    """

    def start(self, init: Init) -> Missed | None: ...
    def answer(self, observe: Observe) -> Order | Missed: ...


def play(
    case: Case,
    policy: Policy,
    *,
    name: str | None = None,
    seed: int | None = None,
    on_end: Callable[[End], None] = lambda _: None,
) -> Result:
    """The whole game; what the policy raises goes through. ``on_end`` hears how it ended."""
    game = Game(case)
    missed = policy.start(game.init())
    if missed is not None:
        game.tally.miss(missed)
    while not game.over:
        game.step(policy.answer(game.observe()))
    on_end(game.end())
    return game.tally.result(name or type(policy).__name__, seed)
