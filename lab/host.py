"""Plays a case with a policy in this process."""

from collections.abc import Callable
from typing import Protocol

from lab.case import Case
from lab.game import Game
from lab.tally import Result
from lab.wire import Init, Missed, Observe, Order


class Policy(Protocol):
    """``start`` once with what is known before step 0; then an order for each ``observe``.

    A policy that could not answer says ``Missed``: the previous order stands.
    """

    def start(self, init: Init) -> None: ...
    def answer(self, observe: Observe) -> Order | Missed: ...


def play(
    case: Case,
    policy: Policy,
    *,
    name: str | None = None,
    seed: int | None = None,
    on_step: Callable[[int], None] | None = None,
) -> Result:
    """The whole game; what the policy raises goes through. ``on_step`` hears the step just played."""
    game = Game(case)
    policy.start(game.init())
    while not game.over:
        game.step(policy.answer(game.observe()))
        if on_step is not None:
            on_step(game.now)
    return game.tally.result(name or type(policy).__name__, seed)
