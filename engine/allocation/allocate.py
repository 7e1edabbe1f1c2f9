"""allocate_shards(): predict, discover, pick, ResourceLocking.reserve; else ask for more capacity and try again."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Protocol

from pydantic import Field

from engine.allocation.lease import Lease, Stock
from engine.allocation.locking import ResourceLocking
from engine.errors import InsufficientCapacity
from engine.model.capacity import Pool, Probability
from engine.model.ids import NodeId, PoolId
from engine.model.market import Quote
from engine.model.money import Money
from engine.model.value import Value

_SCALE_OUTS = 2
"""How often one request asks for more capacity before it gives up."""


class AllocationRequest(Value):
    pool: Pool
    count: Annotated[int, Field(gt=0)]
    """Shards wanted, all or none."""
    holder: str
    key: Annotated[str, Field(min_length=1, max_length=160)]
    """Idempotency key: the same request again gets the same shards."""
    ttl: timedelta = timedelta(minutes=5)


class Source(Value):
    """Somewhere that shards of a pool can be had."""

    stock: Stock
    shards_per_unit: Annotated[int, Field(gt=0)] = 1
    price_per_shard_hour: Money
    """Zero for what runs anyway."""
    survival: Probability = 1.0
    node: NodeId | None = None
    """Set for free slots of a running node."""
    quote: Quote | None = None
    """Set for units still to be bought."""


class Allocation(Value):
    request: AllocationRequest
    leases: tuple[Lease, ...]
    shards: int
    """At least ``request.count``: a unit that has to be bought may carry more."""
    scaled_out: int
    """How often more capacity was asked for."""


class Predicts(Protocol):
    def expected(self, pool: PoolId) -> int:
        """Shards the pool is expected to need besides this request within the horizon (its class's quantile)."""
        ...


class Discovers(Protocol):
    def sources(self, pool: Pool, shards: int) -> Sequence[Source]:
        """Where so many shards of the pool could be had now: free slots first of all, then firm quotes."""
        ...


class ScalesOut(Protocol):
    def request_more(self, pool: Pool, shards: int, *, key: str) -> bool:
        """Ask for capacity for so many more shards; True when there may be more to find now. Same key, same request."""
        ...


def allocate_shards(
    request: AllocationRequest,
    *,
    predict: Predicts,
    discover: Discovers,
    locking: ResourceLocking,
    scale_out: ScalesOut,
) -> Allocation:
    """Shards for one request, held under fencing tokens until they are confirmed or lapse.

    Looks as far ahead as the forecast does, so that what is asked for on scaling out serves the next requests too.
    Raises InsufficientCapacity, with everything given back, when the whole count cannot be had.
    """
    basket = _Basket(request, locking)
    scaled_out = 0
    while basket.shards < request.count:
        expected = predict.expected(request.pool.id)
        for source in pick(discover.sources(request.pool, request.count - basket.shards + expected)):
            if basket.shards < request.count:
                basket.add_from(source)
        if basket.shards >= request.count:
            break
        wanted, key = request.count - basket.shards + expected, f"{request.key}/scale-out/{scaled_out}"
        if scaled_out == _SCALE_OUTS or not scale_out.request_more(request.pool, wanted, key=key):
            had = basket.shards
            basket.give_back()
            raise InsufficientCapacity(
                f"{request.count} shard(s) of pool {request.pool.id} wanted, {had} could be had",
                why="nothing on offer is left and no more capacity could be had",
                next_step="shardwright offers",
            )
        scaled_out += 1
    return Allocation(request=request, leases=tuple(basket.leases), shards=basket.shards, scaled_out=scaled_out)


def pick(sources: Sequence[Source]) -> list[Source]:
    """Cheapest surviving shard-hour first: what runs anyway, then by price over survival; ties by name."""
    return sorted(
        sources,
        key=lambda source: (
            float(source.price_per_shard_hour.amount) / max(source.survival, 1e-9),
            source.node is None,
            source.stock.id,
        ),
    )


class _Basket:
    """What the request holds so far, an earlier attempt with the same key included."""

    def __init__(self, request: AllocationRequest, locking: ResourceLocking) -> None:
        self._request, self._locking = request, locking
        earlier = locking.of_group(request.key)
        self._ordinal = len(earlier)
        self.leases = [lease for lease in earlier if lease.is_active]

    @property
    def shards(self) -> int:
        return sum(lease.units * lease.shards_per_unit for lease in self.leases)

    def add_from(self, source: Source) -> None:
        """As many units as are still needed and left; none when somebody else was quicker."""
        missing = self._request.count - self.shards
        try:
            lease = self._locking.reserve(
                source.stock,
                -(-missing // source.shards_per_unit),
                key=f"{self._request.key}#{self._ordinal}",
                group=self._request.key,
                holder=self._request.holder,
                ttl=self._request.ttl,
                at_least=1,
                shards_per_unit=source.shards_per_unit,
                quote=source.quote,
            )
        except InsufficientCapacity:
            return
        self.leases.append(lease)
        self._ordinal += 1

    def give_back(self) -> None:
        for lease in self.leases:
            self._locking.release(lease)
