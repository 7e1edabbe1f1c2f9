"""A case of the capacity game: who needs how much when, what is offered, and what stays hidden from the policies.

Read from JSON, plain or gzip, of format ``capacity-game-case/1``. Every defect of a file is told at once.
"""

import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, PlainSerializer, ValidationError, model_validator

from engine.errors import BadCase
from engine.model.value import Utc, Value

FORMAT = "capacity-game-case/1"
MAX_BYTES = 512 * 1024 * 1024
"""Of the unpacked text; a case of 14 pools and 864 steps has 1 MB."""
MAX_STEPS = 1_000_000

Identifier = Annotated[str, Field(min_length=1, max_length=200)]


def _text_to_decimal(value: object) -> object:
    if isinstance(value, Decimal):
        return value
    if not isinstance(value, str):
        raise ValueError("an amount is written as text, never as a JSON number")
    try:
        return Decimal(value)
    except ArithmeticError as problem:
        raise ValueError("not a decimal number") from problem


def _text_to_time(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return datetime.fromisoformat(value)
    except ValueError as problem:
        raise ValueError("not a time such as 2024-07-22 00:00:00+00:00") from problem


Amount = Annotated[
    Decimal,
    BeforeValidator(_text_to_decimal),
    Field(ge=0, le=1_000_000, decimal_places=15),
    PlainSerializer(lambda amount: f"{amount:f}", return_type=str, when_used="json"),
]
"""USD, exact."""
Time = Annotated[Utc, BeforeValidator(_text_to_time), PlainSerializer(lambda t: t.isoformat(" "), when_used="json")]
Count = Annotated[int, Field(ge=0, le=10_000_000)]
Share = Annotated[float, Field(ge=0, le=1)]
PricePoint = tuple[int, Amount]
DepthPoint = tuple[int, Count]


class RiskClass(Value):
    """``rank`` 0 is served first; ``max_shortfall`` is the share of demanded shard-hours that may be short."""

    rank: Annotated[int, Field(ge=0)]
    max_shortfall: Share


class Fleet(Value):
    """Pools that share capacity: the same shard vector and the same allowed areas."""

    id: Identifier
    vector: dict[str, float]
    areas: tuple[str, ...]
    move_usd_per_shard: Amount


class Pool(Value):
    """Demand in whole shards a step: ``history`` before step 0, ``demand`` hidden."""

    id: Identifier
    fleet: Identifier
    risk: Identifier
    history: tuple[Count, ...]
    demand: tuple[Count, ...]


class _Offer(Value):
    id: Identifier
    provider: str
    region: str
    area: str
    cell: Identifier
    group: Identifier
    instance_type: str
    vector: dict[str, float]
    shards_per_unit: dict[str, Annotated[int, Field(ge=1, le=1_000_000)]]
    lead: Annotated[int, Field(ge=1, le=MAX_STEPS)]
    min_steps: Annotated[int, Field(ge=1, le=MAX_STEPS)]
    on_demand_price: Amount


class OnDemandOffer(_Offer):
    option: Literal["on_demand"]
    price: Amount


class SpotOffer(_Offer):
    """``prices`` and ``available`` (the hidden depth, in units) are change points: the last one at or before a step
    holds.
    """

    option: Literal["spot"]
    interruption_band: str | None = None
    prices: Annotated[tuple[PricePoint, ...], Field(min_length=1)]
    available: tuple[DepthPoint, ...]


class CommitmentOffer(_Offer):
    """``term`` in steps, ``price`` per unit-hour, used or not."""

    option: Literal["commitment"]
    price: Amount
    term: Annotated[int, Field(ge=1, le=MAX_STEPS)]


Offer = Annotated[OnDemandOffer | SpotOffer | CommitmentOffer, Field(discriminator="option")]


class Case(Value):
    """``demand``, and of spot the ``prices`` from step 0 on and ``available``, are for the game alone."""

    format: Literal["capacity-game-case/1"]
    id: Identifier
    title: str = ""
    step_minutes: Annotated[int, Field(ge=1, le=7 * 24 * 60)]
    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)]
    start: Time
    risk_classes: Annotated[dict[str, RiskClass], Field(min_length=1)]
    max_shortfall: Share
    fleets: Annotated[tuple[Fleet, ...], Field(min_length=1)]
    pools: Annotated[tuple[Pool, ...], Field(min_length=1)]
    offers: Annotated[tuple[Offer, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        found = [*self._of_ids(), *self._of_pools(), *self._of_offers()]
        if found:
            raise ValueError("; ".join(found[:10]) + (f"; and {len(found) - 10} more" if len(found) > 10 else ""))
        return self

    def _of_ids(self) -> Iterator[str]:
        named = (("fleet", self.fleets), ("pool", self.pools), ("offer", self.offers))
        for kind, items in named:
            ids = [item.id for item in items]
            yield from (f"{kind} {each!r} stands there twice" for each in sorted({i for i in ids if ids.count(i) > 1}))
        ranks = [risk.rank for risk in self.risk_classes.values()]
        if len(set(ranks)) < len(ranks):
            yield "two risk classes have the same rank"

    def _of_pools(self) -> Iterator[str]:
        fleets = {fleet.id for fleet in self.fleets}
        for pool in self.pools:
            if pool.fleet not in fleets:
                yield f"pool {pool.id!r}: there is no fleet {pool.fleet!r}"
            if pool.risk not in self.risk_classes:
                yield f"pool {pool.id!r}: there is no risk class {pool.risk!r}"
            if len(pool.demand) != self.steps:
                yield f"pool {pool.id!r}: demand of {len(pool.demand)} steps, not of {self.steps}"

    def _of_offers(self) -> Iterator[str]:
        fleets = {fleet.id for fleet in self.fleets}
        for offer in self.offers:
            unknown = sorted(set(offer.shards_per_unit) - fleets)
            if unknown:
                yield f"offer {offer.id!r}: there is no fleet {unknown[0]!r}"
            if isinstance(offer, SpotOffer):
                if not _rising(offer.prices) or not _rising(offer.available):
                    yield f"offer {offer.id!r}: change points that are not in the order of time"
                if offer.prices[0][0] > 0:
                    yield f"offer {offer.id!r}: no price at step 0"

    @property
    def step_hours(self) -> float:
        return self.step_minutes / 60

    @property
    def fingerprint(self) -> str:
        """Of the content, whatever the file's layout: names the inputs of a result."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]


def _rising(points: Sequence[tuple[int, object]]) -> bool:
    return all(before[0] < after[0] for before, after in pairwise(points))


def read_case(path: Path) -> Case:
    """BadCase: what is wrong and where, every defect of the file at once."""
    try:
        packed = path.read_bytes()
        text = _unpacked(packed) if packed[:2] == b"\x1f\x8b" else packed
    except (OSError, EOFError, zlib.error) as problem:
        reason = problem.strerror if isinstance(problem, OSError) and problem.strerror else str(problem)
        raise BadCase(f"{path} cannot be read", why=reason, next_step="give a case as JSON or gzip") from problem
    return parse_case(text, str(path))


def parse_case(text: bytes, name: str) -> Case:
    try:
        return Case.model_validate_json(text)
    except ValidationError as problem:
        defects = [f"{'.'.join(map(str, e['loc'])) or 'case'}: {e['msg']}" for e in problem.errors(include_url=False)]
        more = f"; and {len(defects) - 10} more" if len(defects) > 10 else ""
        raise BadCase(
            f"{name} is not a case of the capacity game",
            why="; ".join(defects[:10]) + more,
            next_step=f"the format is {FORMAT}; see docs/how-to/lab.md",
        ) from None


def _unpacked(packed: bytes) -> bytes:
    """A small file that unpacks to more than memory is refused, not tried."""
    with gzip.GzipFile(fileobj=io.BytesIO(packed)) as file:
        text = file.read(MAX_BYTES + 1)
    if len(text) > MAX_BYTES:
        raise EOFError(f"it unpacks to more than {MAX_BYTES // 2**20} MiB")
    return text
