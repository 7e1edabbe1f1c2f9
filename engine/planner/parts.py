"""A need that may be divided: into how many equal parts each shard of a pool is split before the plan is made. Pure.

A part is a shard like any other, so the programme that follows knows nothing of this. A pool is divided only where its
components say that they can be (``max_parts``), and only where that is cheaper on the quotes at hand than whole shards,
or whole shards cannot be had at all. What is divided stays so for as long as it has shards: their size changes neither
with the market nor with what its components allow meanwhile.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal

from engine.model.capacity import CapacityTarget, Resources, TargetStep
from engine.model.ids import CellId, PoolId
from engine.model.market import Quote
from engine.model.placement import Cell
from engine.model.plan import PoolParts
from engine.model.value import Value
from engine.planner.inventory import Inventory
from engine.planner.need import read_needs
from engine.planner.policy import PlanPolicy
from engine.planner.screening import Screen, quote_refused

Units = Iterable[tuple[int, Decimal, int]]
"""(shards that one unit holds, its price, how many there are)"""


class Divided(Value):
    targets: tuple[CapacityTarget, ...]
    parts: tuple[PoolParts, ...] = ()
    """Of the pools that are divided."""

    def of(self, pool: PoolId) -> int:
        return next((one.parts for one in self.parts if one.pool == pool), 1)


def divide(
    policy: PlanPolicy,
    targets: Sequence[CapacityTarget],
    quotes: Sequence[Quote],
    inventory: Inventory,
    max_parts: Mapping[PoolId, int],
    *,
    cells: Sequence[Cell],
    now: datetime,
) -> Divided:
    """The targets as the programme shall see them, and for each pool that is divided why."""
    made, told = [], []
    usable = [quote for quote in quotes if not quote_refused(quote, policy, now)]
    known = {cell.id: cell for cell in cells}
    here = _types_there(inventory)
    for target in targets:
        most = max_parts.get(target.pool.id, 1)
        choice = _choice(policy, target, usable, here.get(target.pool.id, frozenset()), most, known)
        made.append(target if choice is None else in_parts(target, choice.parts))
        told += [] if choice is None else [choice]
    return Divided(targets=tuple(made), parts=tuple(told))


def in_parts(target: CapacityTarget, parts: int) -> CapacityTarget:
    """So many shards of a part each for every whole one."""
    return target.model_copy(
        update={
            "pool": target.pool.model_copy(update={"shard_type": target.pool.shard_type.part(parts)}),
            "desired": target.desired * parts,
            "current": target.current * parts,
            "steps": tuple(
                TargetStep(
                    start=step.start,
                    shards_by_quantile=tuple((q, number * parts) for q, number in step.shards_by_quantile),
                )
                for step in target.steps
            ),
            "demand_paths": tuple(tuple(number * parts for number in path) for path in target.demand_paths),
        }
    )


def _types_there(inventory: Inventory) -> dict[PoolId, set[str]]:
    """Names of the types of each pool's shards."""
    found: dict[PoolId, set[str]] = {}
    for item in inventory.nodes:
        for slot in item.slots:
            found.setdefault(slot.pool, set()).add(slot.shard_type)
    return found


def _choice(
    policy: PlanPolicy,
    target: CapacityTarget,
    quotes: Sequence[Quote],
    here: Collection[str],
    most: int,
    cells: Mapping[CellId, Cell],
) -> PoolParts | None:
    """None: whole shards."""
    of = target.pool
    divisions = [parts for name in here if (parts := of.shard_type.divided_into(name)) is not None]
    if divisions:
        parts = min(divisions)
        return None if parts == 1 else _told(target, parts, "as what is there already")
    if most <= 1:
        return None
    prices = {
        parts: price
        for parts in range(1, most + 1)
        if (price := _price(policy, in_parts(target, parts), quotes, cells)) is not None
    }
    if not prices:
        return None  # the plan says what is nearest
    best = min(prices, key=lambda parts: (prices[parts], parts))
    if best == 1:
        return None
    if 1 not in prices:
        return _told(target, best, f"no offer holds {target.desired} whole: {_words(of.shard_type.resources)} each")
    return _told(target, best, f"{prices[best]:.4f} per hour against {prices[1]:.4f} in one piece each")


def _told(target: CapacityTarget, parts: int, why: str) -> PoolParts:
    size = _words(target.pool.shard_type.part(parts).resources)
    return PoolParts(pool=target.pool.id, parts=parts, reason=f"met by {parts} parts of {size} each: {why}")


def _words(resources: Resources) -> str:
    words = [f"{resources.vcpus:g} vCPU", f"{resources.memory_gib:g} GiB"]
    words += [f"{resources.storage_iops:g} IOPS"] if resources.storage_iops else []
    words += [f"{resources.network_mbps:g} Mbit/s"] if resources.network_mbps else []
    return ", ".join(words)


def _price(
    policy: PlanPolicy, target: CapacityTarget, quotes: Sequence[Quote], cells: Mapping[CellId, Cell]
) -> Decimal | None:
    """Of the desired shards, bought on these quotes alone."""
    screen = Screen(policy, read_needs(policy, [target]), dict(cells))
    units = []
    for quote in quotes:
        fit = screen.fit(quote.offer)
        if fit.pools:
            units.append((fit.slots[0], quote.unit_price.amount, quote.quantity))
    return cheapest_cover(units, target.desired)


def cheapest_cover(units: Units, wanted: int) -> Decimal | None:
    """The least price of units that hold ``wanted`` shards together, exactly; None where all of them do not."""
    least: list[Decimal | None] = [Decimal(0), *(None for _ in range(wanted))]
    for slots, price in _bundles(units, wanted):
        for covered in range(wanted, 0, -1):
            before, now = least[max(0, covered - slots)], least[covered]
            if before is not None and (now is None or before + price < now):
                least[covered] = before + price
    return least[wanted]


def _bundles(units: Units, wanted: int) -> list[tuple[int, Decimal]]:
    """(shards, price) of lots to take or leave: by size the cheapest that cover everything on their own, in lots of 1,
    2, 4 … units and what remains, of which any number can be made up.
    """
    by_slots: dict[int, list[tuple[Decimal, int]]] = {}
    for slots, price, number in units:
        if slots > 0 and number > 0:
            by_slots.setdefault(min(slots, wanted), []).append((price, number))
    found = []
    for slots, offers in by_slots.items():
        room = -(-wanted // max(1, slots))
        for price, number in sorted(offers):
            if room <= 0:
                break
            taken = min(number, room)
            room -= taken
            lot = 1
            while taken > 0:
                found.append((slots * min(lot, taken), price * min(lot, taken)))
                taken, lot = taken - lot, 2 * lot
    return found
