"""What the fault campaign tries: every fault in every state of a move, at moments drawn from a seed. Pure."""

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator
from enum import StrEnum

from engine.model.move import MovePhase
from engine.model.value import Value


class Fault(StrEnum):
    SOURCE_GUEST = "kill source guest"
    DESTINATION_GUEST = "kill destination guest"
    SOURCE_AGENT = "kill source agent"
    DESTINATION_AGENT = "kill destination agent"
    CONTROLLER = "kill controller"
    NODES_APART = "cut the nodes apart"
    SOURCE_AWAY = "cut source from control"
    DESTINATION_AWAY = "cut destination from control"
    SLOW_LINK = "slow link"


STATES = (
    MovePhase.RESERVED, MovePhase.PREPARED, MovePhase.MIRRORING, MovePhase.PRECOPY, MovePhase.SWITCHING,
    MovePhase.COMMITTED,
)  # fmt: skip
COMBINATIONS = len(Fault) * len(STATES)
_LONG_AWAY = (16.0, 19.0)
"""Long enough for a guest that was left paused to ask for itself."""


class Case(Value):
    index: int
    fault: Fault
    state: MovePhase
    after: float
    """Seconds from entering the state until the fault; 0: the move waits on its threshold meanwhile."""
    heal: float
    """Seconds from the fault until everything is well again."""
    mbps: float

    def __str__(self) -> str:
        when = f"{self.after * 1000:.0f} ms into" if self.after else "on entering"
        return f"{self.fault.value} {when} {self.state.value}"


def case(seed: int, index: int) -> Case:
    """The ``index``-th of a seed: each round of COMBINATIONS has every fault in every state once, in another order."""
    round_number, place = divmod(index, COMBINATIONS)
    order = [(fault, state) for fault in Fault for state in STATES]
    random.Random(f"{seed}/{round_number}").shuffle(order)
    fault, state = order[place]
    dice = random.Random(f"{seed}/{index}/moment")
    after = dice.choice((0.0, dice.uniform(0.0, 0.15)))
    heal = dice.uniform(0.3, 6.0)
    if fault is Fault.CONTROLLER and state is MovePhase.SWITCHING and dice.random() < 0.3:
        heal = dice.uniform(*_LONG_AWAY)
    return Case(index=index, fault=fault, state=state, after=after, heal=heal, mbps=dice.uniform(20, 80))


def cases(seed: int, runs: int, first: int = 0) -> Iterator[Case]:
    return (case(seed, index) for index in range(first, first + runs))


class Outcome(Value):
    case: Case
    phase: MovePhase
    downtime: float
    """The longest time in which no copy of the guest ran; a guest that died and was booted again has a long one."""
    gap: float
    """The longest time between two acknowledgements, 0 for a client whose guest died."""
    survived: bool
    """The guest's memory, and with it the client's connection."""
    settled: float
    """Seconds from the beginning of the move until nothing was left to do."""
    records: int


def table(outcomes: Iterable[Outcome]) -> str:
    """Fault x state: runs, how many were committed and how many given up, longest downtime and gap of survivors."""
    groups: dict[tuple[Fault, MovePhase], list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        groups[outcome.case.fault, outcome.case.state].append(outcome)
    lines = ["| fault | state | runs | committed | given up | guest survived | longest downtime | longest gap |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for fault in Fault:
        for state in STATES:
            if found := groups.get((fault, state)):
                committed = sum(one.phase is MovePhase.CLEANED for one in found)
                alive = [one for one in found if one.survived]
                down = f"{max(one.downtime for one in alive):.2f} s" if alive else "-"
                gap = f"{max(one.gap for one in alive):.2f} s" if alive else "-"
                lines.append(
                    f"| {fault.value} | {state.value} | {len(found)} | {committed} | {len(found) - committed} | "
                    f"{len(alive)} | {down} | {gap} |"
                )
    return "\n".join(lines)
