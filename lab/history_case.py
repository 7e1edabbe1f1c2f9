"""A case from a user's own history: "what would Shardwright have saved us last month?"

The last days of the usage are the game, what stands before them is the history. Prices and availability are aligned by
the calendar where they overlap it; where they do not, the end of their record stands for the end of the usage, and the
notes say so. Nothing is assumed in favour of spot: without a record of availability there is none.
"""

import gzip
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from math import ceil
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from engine.errors import UsageError
from engine.output_file import drafted
from lab.case import Case, Fleet, Offer, OnDemandOffer, Pool, RiskClass
from lab.market_files import ABSURD_USD_H, Kind, Record, read_availability, read_kinds, read_spot_prices
from lab.replayed_spot import AREA, FLEET, Clock, offer_fields, replayed_spot

if TYPE_CHECKING:
    from forecasting.usage import UsageFile

MAX_KINDS = 40
MAX_A_CELL = 6
HISTORY_DAYS = 28
EGRESS_USD_GIB = Decimal("0.02")
DOUBLE_PAY_HOURS = Decimal("0.1")
RISK = "stated"


@dataclass(frozen=True)
class Need:
    """Whose usage; one shard serves ``per_shard`` of its metric and takes ``vcpus`` and ``memory_gib``."""

    usage: Path
    metric: str | None = None
    per_shard: float = 1.0
    vcpus: float = 1.0
    memory_gib: float = 4.0


@dataclass(frozen=True)
class Market:
    offers: Path | None
    spot: Path | None = None
    availability: Path | None = None
    regions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Built:
    """A case, and in words what was left out, aligned or borrowed to make it."""

    case: Case
    notes: tuple[str, ...]

    def write(self, path: Path) -> None:
        """As a case file (gzip), whole or not at all."""
        with drafted(path) as draft:
            draft.write_bytes(gzip.compress(self.case.model_dump_json().encode(), mtime=0))


def case_from_history(need: Need, market: Market, *, risk: float, days: int, seed: int) -> Built:
    """UsageError: what the files lack, or too little history for ``days``."""
    from forecasting.usage import read_usage

    if market.offers is None:
        raise UsageError("a case needs offers", why="--offers is missing", next_step="give --offers FILE")
    if need.per_shard <= 0 or (need.vcpus <= 0 and need.memory_gib <= 0):
        raise UsageError(
            "a shard must take something", why="--per-shard or the size of a shard is 0", next_step="give sizes above 0"
        )
    usage, left_out = read_usage(need.usage, metric=need.metric).measured()
    clock = _clock_of(usage, days)
    notes = [f"usage: {name} holds no value and is left out" for name in left_out]
    pools, told = _pools(usage, clock, need.per_shard)
    notes += told
    kinds, told = read_kinds(market.offers, need.vcpus, need.memory_gib, market.regions)
    notes += told
    prices = read_spot_prices(market.spot, kinds) if market.spot else {}
    kinds = _chosen(kinds, prices)
    offers: list[Offer] = [_on_demand(kind) for kind in kinds]
    if market.availability is None:
        notes.append("no spot: without --availability nobody knows how much of it could have been had")
    else:
        records = read_availability(market.availability)
        spot, told = replayed_spot(kinds, prices, records, clock, random.Random(seed))  # noqa: S311 - a draw to repeat
        offers, notes = [*offers, *spot], [*notes, *told]
    case = Case(
        format="capacity-game-case/1",
        id=need.usage.stem[:190],
        title=f"The last {days} days of {need.usage.name}",
        step_minutes=round(clock.step / timedelta(minutes=1)),
        steps=clock.steps,
        start=clock.start,
        risk_classes={RISK: RiskClass(rank=0, max_shortfall=risk)},
        max_shortfall=risk,
        fleets=(_fleet(need, kinds),),
        pools=tuple(pools),
        offers=tuple(offers),
    )
    return Built(case, tuple(notes))


def _clock_of(usage: "UsageFile", days: int) -> Clock:
    if usage.freq % timedelta(minutes=1):
        raise UsageError(
            f"the usage has a step of {usage.freq}", why="the lab plays whole minutes", next_step="resample the usage"
        )
    end = max(history.end for history in usage.histories)
    steps = timedelta(days=days) // usage.freq
    start = end - steps * usage.freq
    if steps < 1 or min(history.start for history in usage.histories) >= start:
        first = min(history.start for history in usage.histories)
        raise UsageError(
            f"the usage is too short to replay {days} days",
            why=f"it reaches from {first:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M}, and a policy must see some before",
            next_step="give fewer --days",
        )
    return Clock(start, usage.freq, steps)


def _pools(usage: "UsageFile", clock: Clock, per_shard: float) -> tuple[list[Pool], list[str]]:
    before = timedelta(days=HISTORY_DAYS) // clock.step
    first = max(-before, clock.at(min(history.start for history in usage.histories)))
    filled, pools = 0, []
    for history in usage.histories:
        shards = [0] * (clock.steps - first)
        offset, last = clock.at(history.start) - first, 0
        for at, value in enumerate(history.values):
            if np.isfinite(value):
                last = max(0, ceil(value / per_shard - 1e-9))
            else:
                filled += 1
            if 0 <= offset + at < len(shards):
                shards[offset + at] = last
        pools.append(
            Pool(
                id=history.series_id,
                fleet=FLEET,
                risk=RISK,
                history=tuple(shards[:-first]),
                demand=tuple(shards[-first:]),
            )
        )
    return pools, [f"usage: {filled} missing values take the value before"] if filled else []


def _chosen(kinds: Sequence[Kind], prices: Mapping[tuple[str, str, str], Record]) -> list[Kind]:
    """A quarter by the price on demand, the rest by what spot cost last; few of each region, so that cells are many."""

    def by_demand(kind: Kind) -> float:
        return float(kind.on_demand) / kind.shards

    def by_spot(kind: Kind) -> float:
        record = prices.get(kind.key)
        last = float(record.values[-1]) if record else float(kind.spot or kind.on_demand)
        return last / kind.shards + (0 if record or not prices else float(ABSURD_USD_H))  # recorded ones come first

    chosen: dict[tuple[str, str, str], Kind] = {}
    cells: dict[tuple[str, str], int] = {}
    for order, most in ((by_demand, MAX_KINDS // 4), (by_spot, MAX_KINDS)):
        for kind in sorted(kinds, key=lambda each: (order(each), each.key)):
            cell = (kind.provider, kind.region)
            if len(chosen) < most and kind.key not in chosen and cells.get(cell, 0) < MAX_A_CELL:
                chosen[kind.key] = kind
                cells[cell] = cells.get(cell, 0) + 1
    return sorted(chosen.values(), key=lambda kind: kind.key)


def _fleet(need: Need, kinds: Sequence[Kind]) -> Fleet:
    """A move costs the egress of a shard's memory and six minutes of double pay, as in the rules of play."""
    middle = median(kind.on_demand / kind.shards for kind in kinds)
    move = EGRESS_USD_GIB * Decimal(str(need.memory_gib)) + DOUBLE_PAY_HOURS * middle
    return Fleet(
        id=FLEET,
        vector={"vcpus": need.vcpus, "memory_gib": need.memory_gib},
        areas=(AREA,),
        move_usd_per_shard=round(move, 6),
    )


def _on_demand(kind: Kind) -> OnDemandOffer:
    return OnDemandOffer(option="on_demand", price=kind.on_demand, **offer_fields(kind, "od"))  # type: ignore[arg-type]
