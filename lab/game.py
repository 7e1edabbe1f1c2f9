"""The capacity game: one step at a time, exactly by its rules (docs/design/0013-lab.md numbers them).

``observe()`` says what a policy may see, ``step(order)`` plays the next step. Hidden things (depth, the demand and
prices to come) stay in the board. Pure but for its own state: no clock, no randomness.
"""

from dataclasses import dataclass, replace
from decimal import Decimal

from engine.errors import ShardwrightError
from lab.amounts import to_usd
from lab.attachment import Attachment
from lab.board import Board
from lab.case import Case, SpotOffer
from lab.holdings import Holdings, reclaim
from lab.standing_order import Malformed, accepted, no_order
from lab.tally import Charged, Line, Tally
from lab.wire import (
    End,
    FleetUnits,
    HeldCommitment,
    Init,
    InitFleet,
    InitOffer,
    InitPool,
    Missed,
    Observe,
    Order,
    risks_of,
)

Counts = dict[tuple[int, int], int]
"""Units by fleet and offer (positions)."""


@dataclass(frozen=True, slots=True)
class _Commitment:
    fleet: int
    offer: int
    units: int
    start: int
    until: int


class Game:
    """Not shared between threads."""

    def __init__(self, case: Case) -> None:
        self.board = Board(case)
        self.tally = Tally(self.board)
        self.now = -1
        self._order = no_order(self.board)
        self._fleets = [Holdings() for _ in self.board.fleet_ids]
        self._attached = [Attachment(len(self.board.cell_ids)) for _ in self.board.fleet_ids]
        self._commitments: list[_Commitment] = []
        self._delivered: Counts = {}
        self._denied: Counts = {}
        self._reclaimed: Counts = {}
        self._demand: dict[str, int] = {}
        self._covered: dict[str, int] = {}

    @property
    def over(self) -> bool:
        return self.now >= self.board.steps - 1

    def init(self) -> Init:
        return init_of(self.board.case)

    def end(self) -> End:
        return End(cost=to_usd(self.tally.nano), shortfall_rate=self.tally.shortfall_rate)

    def observe(self) -> Observe:
        # Built without validation: these are the game's own values, and it happens at every step.
        board = self.board
        return Observe.model_construct(
            step=self.now,
            demand=self._demand,
            covered=self._covered,
            prices=dict(board.shown_prices[max(self.now, 0)]),
            held=self._shown(
                {(f, o): sum(c.units for c in cs) for f, mine in enumerate(self._fleets) for o, cs in mine.held.items()}
            ),
            pending=self._shown(
                {
                    (f, o): sum(c.units for c in cs)
                    for f, mine in enumerate(self._fleets)
                    for o, cs in mine.pending.items()
                }
            ),
            commitments=tuple(self._shown_commitment(c) for c in self._commitments if c.until > self.now + 1),
            attached={
                board.fleet_ids[at]: {board.cell_ids[cell]: n for cell, n in enumerate(each.shards) if n}
                for at, each in enumerate(self._attached)
            },
            delivered=self._shown(self._delivered),
            denied=self._shown(self._denied),
            reclaimed=self._shown(self._reclaimed),
            cost=to_usd(self.tally.nano),
        )

    def step(self, answer: Order | Missed) -> None:
        """Take the answer to the last ``observe`` and play the next step."""
        if self.over:
            raise ShardwrightError("the game is over", why=f"it has {self.board.steps} steps")
        self._take(answer)
        self._change_targets()
        self.now += 1
        self._delivered, self._denied, self._reclaimed = {}, {}, {}
        self._reclaim()
        self._fall_back(self._arrive())
        self._charge_held()
        self._serve()
        if self.over:
            self._charge_terms_after_end()

    # rule 11

    def _take(self, answer: Order | Missed) -> None:
        if isinstance(answer, Order):
            try:
                self._order = accepted(self.board, answer, self.now)
            except Malformed as problem:
                self.tally.why_malformed.append(f"step {self.now}: {problem}")
                answer = Missed.MALFORMED
            else:
                return
        self._order = replace(self._order, commit=())
        self.tally.miss(answer)

    # rules 4 and 7

    def _change_targets(self) -> None:
        board, now = self.board, self.now
        for at, mine in enumerate(self._fleets):
            targets = self._order.targets[at]
            for offer in sorted(mine.named() | targets.keys()):
                want, have = targets.get(offer, 0), mine.have(offer)
                if want > have:
                    mine.ask(offer, want - have, 0 if now < 0 else now + board.lead[offer])
                elif want < have:
                    self._give_up(at, offer, have - want)
        for at, offer, units in self._order.commit:
            start = 0 if now < 0 else now + board.lead[offer]
            if units:
                self._commitments.append(_Commitment(at, offer, units, start, start + board.term[offer]))

    def _give_up(self, fleet: int, offer: int, units: int) -> None:
        given_back = self._fleets[fleet].give_up(offer, units, self.now + 1)
        least = self.board.min_steps[offer]
        missing = sum(max(0, least - (self.now + 1 - cohort.step)) * cohort.units for cohort in given_back)
        if missing:
            self._charge(fleet, offer, Charged.MINIMUM, missing)

    # rules 5 and 6

    def _depth(self, offer: int) -> int:
        ceiling = self._order.bids.get(offer)
        if ceiling is not None and self.board.shown_prices[self.now][self.board.offer_ids[offer]] > ceiling:
            return 0
        return self.board.depths[offer][self.now]

    def _held_by_all(self, offer: int) -> int:
        return sum(mine.units(offer) for mine in self._fleets)

    def _reclaim(self) -> None:
        for offer in sorted(set().union(*(mine.held for mine in self._fleets))):
            if not self.board.is_spot[offer]:
                continue
            above = self._held_by_all(offer) - self._depth(offer)
            if above > 0:
                for at, units in reclaim(self._fleets, offer, above):
                    _add(self._reclaimed, at, offer, units)
                    self.tally.preemptions += units

    def _arrive(self) -> list[int]:
        """Shards denied, by fleet."""
        short = [0 for _ in self._fleets]
        for at, mine in enumerate(self._fleets):
            for offer, asked in list(mine.due(self.now)):
                units = asked
                if self.board.is_spot[offer]:
                    units = min(asked, self._depth(offer) - self._held_by_all(offer))
                if units > 0:
                    mine.hold(offer, units, self.now)
                    _add(self._delivered, at, offer, units)
                if units < asked:
                    _add(self._denied, at, offer, asked - units)
                    self.tally.denied += asked - units
                    short[at] += (asked - units) * self.board.shards[at][offer]
        return short

    def _fall_back(self, short: list[int]) -> None:
        for at, shards in enumerate(short):
            left = shards
            for offer in self._order.fallback[at]:
                if left <= 0:
                    break
                each = self.board.shards[at][offer]
                units = -(-left // each)
                if self.board.is_spot[offer]:
                    units = min(units, self._depth(offer) - self._held_by_all(offer))
                if units > 0:
                    self._fleets[at].hold(offer, units, self.now)
                    _add(self._delivered, at, offer, units)
                    left -= units * each

    # rules 7 and 10

    def _charge(self, fleet: int, offer: int, kind: Charged, count: int, step: int | None = None) -> None:
        board, now = self.board, self.now if step is None else step
        nano = board.scale.unit_steps(count, board.prices[offer][now])
        self.tally.charge(Line(now, fleet, offer, kind, count, nano))

    def _charge_held(self) -> None:
        for at, mine in enumerate(self._fleets):
            for offer in sorted(mine.held):
                kind = Charged.SPOT if self.board.is_spot[offer] else Charged.ON_DEMAND
                self._charge(at, offer, kind, mine.units(offer))
        serving: Counts = {}
        for each in self._commitments:
            if each.start <= self.now < each.until:
                _add(serving, each.fleet, each.offer, each.units)
        for (at, offer), units in serving.items():
            self._charge(at, offer, Charged.COMMITMENT, units)

    def _charge_terms_after_end(self) -> None:
        left: Counts = {}
        for each in self._commitments:
            steps = each.until - max(each.start, self.board.steps)
            if steps > 0:
                _add(left, each.fleet, each.offer, each.units * steps)
        for (at, offer), unit_steps in left.items():
            self._charge(at, offer, Charged.TERM_AFTER_END, unit_steps)

    # rules 8 and 9

    def _serve(self) -> None:
        board, now = self.board, self.now
        self._demand, self._covered = {}, {}
        for at in range(len(self._fleets)):
            stable, spot = self._capacity(at)
            free = capacity = sum(stable) + sum(spot)
            self.tally.bought[at].append(capacity)
            for pool in board.pools_of[at]:
                demand = board.demand[pool][now]
                covered = min(demand, free)
                free -= covered
                self.tally.serve(pool, demand, covered)
                self._demand[board.pool_ids[pool]] = demand
                self._covered[board.pool_ids[pool]] = covered
            self.tally.load[at].append(capacity - free)
            moved = self._attached[at].follow(capacity - free, stable, spot)
            if moved:
                self.tally.moves += moved
                nano = board.scale.pieces(moved, board.move_price[at])
                self.tally.charge(Line(now, at, -1, Charged.MOVE, moved, nano))

    def _capacity(self, fleet: int) -> tuple[list[int], list[int]]:
        """Shards by cell: on on-demand and commitments, and on spot."""
        board = self.board
        shards, cell = board.shards[fleet], board.cell
        stable, spot = [0] * len(board.cell_ids), [0] * len(board.cell_ids)
        mine = self._fleets[fleet]
        for offer in mine.held:
            place = spot if board.is_spot[offer] else stable
            place[cell[offer]] += mine.units(offer) * shards[offer]
        for each in self._commitments:
            if each.fleet == fleet and each.start <= self.now < each.until:
                stable[cell[each.offer]] += each.units * shards[each.offer]
        return stable, spot

    # what a policy sees

    def _shown(self, counts: Counts) -> FleetUnits:
        shown: FleetUnits = {name: {} for name in self.board.fleet_ids}
        for (at, offer), units in counts.items():
            shown[self.board.fleet_ids[at]][self.board.offer_ids[offer]] = units
        return shown

    def _shown_commitment(self, each: _Commitment) -> HeldCommitment:
        return HeldCommitment.model_construct(
            fleet=self.board.fleet_ids[each.fleet],
            offer=self.board.offer_ids[each.offer],
            units=each.units,
            start=each.start,
            until=each.until,
        )


def _add(counts: Counts, fleet: int, offer: int, units: int) -> None:
    counts[fleet, offer] = counts.get((fleet, offer), 0) + units


def init_of(case: Case) -> Init:
    """What a policy may know of a case before step 0."""
    return Init(
        case=case.id,
        steps=case.steps,
        step_minutes=case.step_minutes,
        start=case.start.isoformat(" "),
        max_shortfall=case.max_shortfall,
        risk_classes=risks_of(case.risk_classes),
        fleets=tuple(InitFleet(**dict(fleet)) for fleet in case.fleets),
        pools=tuple(InitPool(id=p.id, fleet=p.fleet, risk=p.risk, history=p.history) for p in case.pools),
        offers=tuple(_shown_offer(offer) for offer in case.offers),
    )


def _shown_offer(offer: object) -> InitOffer:
    hidden = {"prices", "available"}
    fields = {name: value for name, value in dict(offer).items() if name not in hidden}  # type: ignore[call-overload]
    if isinstance(offer, SpotOffer):
        past: tuple[tuple[int, Decimal], ...] = tuple(point for point in offer.prices if point[0] < 0)
        fields["price_history"] = past
    return InitOffer(**fields)
