"""Counting a play: every charge as a line, every shard that was demanded, covered and moved."""

from decimal import Decimal
from enum import StrEnum
from typing import Annotated, NamedTuple

from pydantic import Field

from engine.model.value import Value
from lab.amounts import to_usd
from lab.board import Board
from lab.wire import Missed


class Charged(StrEnum):
    ON_DEMAND = "on_demand"
    SPOT = "spot"
    COMMITMENT = "commitment"
    TERM_AFTER_END = "term_after_end"
    MINIMUM = "minimum"
    MOVE = "move"


class Line(NamedTuple):
    """``units``: unit-steps, or moved shards. ``nano``: 1e-9 USD. ``offer`` is -1 for moves."""

    step: int
    fleet: int
    offer: int
    kind: Charged
    units: int
    nano: int


class Result(Value):
    """What a play came to. Rates are short / demanded shard-hours; sums are exact USD.

    ``cost_lines`` sums the lines by (kind, fleet, offer). ``bought`` is
    capacity, ``load`` what of it was used, in shards by fleet and step
    (not part of the written form).
    """

    case: str
    fingerprint: str
    policy: str
    seed: int | None = None
    steps: int
    cost: Decimal
    cost_by_kind: dict[str, Decimal]
    cost_lines: tuple[tuple[str, str, str, Decimal], ...]
    shortfall_rate: float
    shortfall_by_class: dict[str, float]
    shortfall_by_pool: dict[str, float]
    limits: dict[str, float]
    """Allowed shortfall by class, and overall under ``overall``."""
    keeps_risk: bool
    preemptions: int
    denied: int
    moves: int
    malformed: int
    late: int
    why_malformed: tuple[str, ...] = ()
    bought: Annotated[tuple[tuple[int, ...], ...], Field(exclude=True)]
    load: Annotated[tuple[tuple[int, ...], ...], Field(exclude=True)]


OVERALL = "overall"


class Tally:
    def __init__(self, board: Board) -> None:
        self._board = board
        self.nano = 0
        self.lines: list[Line] = []
        pools = range(len(board.pool_ids))
        self.short = [0 for _ in pools]
        self.demanded = [0 for _ in pools]
        self.preemptions = 0
        self.denied = 0
        self.moves = 0
        self.malformed = 0
        self.late = 0
        self.why_malformed: list[str] = []
        self.bought: list[list[int]] = [[] for _ in board.fleet_ids]
        self.load: list[list[int]] = [[] for _ in board.fleet_ids]

    def charge(self, line: Line) -> None:
        self.nano += line.nano
        self.lines.append(line)

    def miss(self, why: Missed) -> None:
        if why is Missed.LATE:
            self.late += 1
        else:
            self.malformed += 1

    def serve(self, pool: int, demand: int, covered: int) -> None:
        self.demanded[pool] += demand
        self.short[pool] += demand - covered

    @property
    def shortfall_rate(self) -> float:
        return _rate(self.short, self.demanded)

    def result(self, policy: str, seed: int | None = None) -> Result:
        case = self._board.case
        classes = {name: [at for at, p in enumerate(case.pools) if p.risk == name] for name in case.risk_classes}
        by_class = {
            name: _rate([self.short[at] for at in pools], [self.demanded[at] for at in pools])
            for name, pools in classes.items()
        }
        limits = {name: risk.max_shortfall for name, risk in case.risk_classes.items()}
        overall = self.shortfall_rate
        keeps = overall <= case.max_shortfall and all(by_class[name] <= limits[name] for name in limits)
        return Result(
            case=case.id,
            fingerprint=case.fingerprint,
            policy=policy,
            seed=seed,
            steps=case.steps,
            cost=to_usd(self.nano),
            cost_by_kind={kind.value: to_usd(nano) for kind, nano in self._by_kind().items()},
            cost_lines=self._cost_lines(),
            shortfall_rate=overall,
            shortfall_by_class=by_class,
            shortfall_by_pool={
                name: _rate([self.short[at]], [self.demanded[at]]) for at, name in enumerate(self._board.pool_ids)
            },
            limits={**limits, OVERALL: case.max_shortfall},
            keeps_risk=keeps,
            preemptions=self.preemptions,
            denied=self.denied,
            moves=self.moves,
            malformed=self.malformed,
            late=self.late,
            why_malformed=tuple(self.why_malformed),
            bought=tuple(tuple(path) for path in self.bought),
            load=tuple(tuple(path) for path in self.load),
        )

    def _by_kind(self) -> dict[Charged, int]:
        sums = dict.fromkeys(Charged, 0)
        for line in self.lines:
            sums[line.kind] += line.nano
        return {kind: nano for kind, nano in sums.items() if nano}

    def _cost_lines(self) -> tuple[tuple[str, str, str, Decimal], ...]:
        sums: dict[tuple[str, str, str], int] = {}
        for line in self.lines:
            offer = self._board.offer_ids[line.offer] if line.offer >= 0 else ""
            key = (line.kind.value, self._board.fleet_ids[line.fleet], offer)
            sums[key] = sums.get(key, 0) + line.nano
        return tuple((*key, to_usd(nano)) for key, nano in sorted(sums.items()))


def _rate(short: list[int], demanded: list[int]) -> float:
    whole = sum(demanded)
    return sum(short) / whole if whole else 0.0
