"""The decision as data: what may be bought or kept, under which limits, and what one choice is worth.

Losses are taken one correlation group at a time (two groups lost within one horizon is left to the scenarios on which
the finished plan is judged), and demand enters as each pool's empirical distribution. That keeps the programme's size
free of the number of scenarios.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from math import floor, inf

from engine.model.capacity import Resources
from engine.model.market import PurchaseOption
from engine.planner.candidates import Candidate, Shelf, Supply, lost_together
from engine.planner.inventory import Inventory, InventoryNode
from engine.planner.need import Needs, PoolNeed
from engine.planner.packing import Pattern, left_over, patterns
from engine.planner.policy import PlanPolicy

MISSING = 1e4
"""What one desired shard that is not there weighs, in reference prices; found only where nothing fits."""
RISK = 100.0
"""Expected shortfall of twice the risk class's limit, per desired shard."""
QUANTILE = 1e3
"""Coverage missing to the risk class's quantile, per desired shard."""
LOST_SHARE = 0.5
"""A reclaimed unit is gone for half the horizon on average."""
IDLE = 1e-4
"""A shard nobody needs weighs this, so that no more are carved than help."""


@dataclass(frozen=True)
class Running:
    """A node of the inventory that may be kept."""

    item: InventoryNode
    supply: Supply
    held: tuple[int, ...]
    """Shards already on it, by pool."""
    patterns: tuple[Pattern, ...]
    """Fillings of its free room, by shape."""
    price: float
    release_cost: float
    """Per hour of the expected stay: what giving it up costs in churn and moves."""
    loss: float
    pinned: bool


@dataclass(frozen=True)
class Unit:
    """One purchased unit and the shards on it, by pool."""

    candidate: int
    shards: tuple[int, ...]

    @cached_property
    def served(self) -> tuple[tuple[int, int], ...]:
        """(pool, shards) of the pools that have any on it: few of many."""
        return served(self.shards)


def served(shards: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """(pool, shards) where there are any."""
    return tuple((pool, number) for pool, number in enumerate(shards) if number)


@dataclass(frozen=True)
class Choice:
    kept: tuple[bool, ...]
    added: tuple[tuple[int, ...], ...]
    """New shards on each running node, by pool."""
    bought: tuple[Unit, ...]


@dataclass(frozen=True)
class Programme:
    policy: PlanPolicy
    needs: Needs
    candidates: tuple[Candidate, ...]
    running: tuple[Running, ...]
    reference: tuple[float, ...]
    """Per pool, the cheapest shard-hour on offer or running."""
    margin: tuple[float, ...]
    """Per pool, coverage asked for beyond the quantile, because an earlier solution fell short of it."""
    reserve: tuple[Shelf, ...] = ()
    """What is on offer besides."""
    supplies: tuple[Supply, ...] = field(init=False)
    group_loss: dict[str, float] = field(init=False)

    def __post_init__(self) -> None:
        entries = [(c.supply, c.loss) for c in self.candidates] + [(r.supply, r.loss) for r in self.running]
        losses: dict[str, float] = {}
        for supply, loss in entries:
            if supply.group is not None:
                losses[supply.group] = max(losses.get(supply.group, 0.0), loss)
        object.__setattr__(self, "supplies", tuple(dict.fromkeys(supply for supply, _ in entries)))
        object.__setattr__(self, "group_loss", losses)

    @cached_property
    def serving(self) -> tuple[tuple[int, ...], ...]:
        """[pool] -> indices of the supplies that can carry its shards."""
        found: list[list[int]] = [[] for _ in self.needs.pools]
        for index, supply in enumerate(self.supplies):
            for pool in supply.pools:
                found[pool].append(index)
        return tuple(tuple(supplies) for supplies in found)

    @cached_property
    def serving_sets(self) -> tuple[frozenset[Supply], ...]:
        """The same, by supply."""
        return tuple(frozenset(self.supplies[index] for index in indices) for indices in self.serving)

    @cached_property
    def shard_scores(self) -> tuple[tuple[float, ...], ...]:
        """[supply][shape] -> the least score of a shard on a full unit on offer; infinite where there is none."""
        index_of = {supply: index for index, supply in enumerate(self.supplies)}
        found = [[inf] * len(self.needs.shapes) for _ in self.supplies]
        for candidate in self.candidates:
            least = found[index_of[candidate.supply]]
            for shape, slots in enumerate(candidate.slots):
                if slots:
                    least[shape] = min(least[shape], candidate.score / slots)
        return tuple(tuple(least) for least in found)

    @cached_property
    def dearest_scores(self) -> tuple[float, ...]:
        """[shape] -> the dearest of all shards on offer."""
        return tuple(
            max((c.score / c.slots[shape] for c in self.candidates if c.slots[shape]), default=1.0)
            for shape in range(len(self.needs.shapes))
        )

    @cached_property
    def scale(self) -> float:
        """A typical shard-hour's price: costs are divided by it, so that currencies and units do not matter."""
        known = sorted(price for price in self.reference if price > 0)
        return known[len(known) // 2] if known else 1.0

    def provider_limit(self, provider: str) -> float:
        """Shards that may be with one provider: the policy's share, or what already runs there if that is more;
        infinite where the share is the whole.
        """
        return max(1, self._held_with.get(provider, 0), self._most_of(self.policy.max_provider_share))

    @cached_property
    def _held_with(self) -> dict[str, int]:
        """Shards that run, by provider."""
        found: dict[str, int] = {}
        for node in self.running:
            found[node.supply.provider] = found.get(node.supply.provider, 0) + sum(node.held)
        return found

    @cached_property
    def spot_limit(self) -> float:
        there = sum(sum(node.held) for node in self.running if node.supply.spot)
        return max(there, self._most_of(self.policy.max_spot_share))

    def _most_of(self, share: float) -> float:
        """All of a pool's shards may be more than are desired: those that risk or what already runs asks for."""
        return inf if share >= 1 else floor(share * self.needs.desired + 1e-9)

    def asked_quantile(self, pool: int) -> float:
        return self._asked_quantiles[pool]

    @cached_property
    def _asked_quantiles(self) -> tuple[float, ...]:
        return tuple(
            min(1.0, min(need.risk.quantile, need.covered(need.desired)) + margin)
            for need, margin in zip(self.needs.pools, self.margin, strict=True)
        )


def running_nodes(
    policy: PlanPolicy, needs: Needs, inventory: Inventory, pinned: frozenset[str], now: datetime
) -> tuple[Running, ...]:
    return tuple(
        _running(policy, needs, item, pinned=item.holds_data or item.outgrown or item.node.id in pinned, now=now)
        for item in sorted(inventory.nodes, key=lambda item: item.node.id)
        if item.stays
    )


def _running(policy: PlanPolicy, needs: Needs, item: InventoryNode, *, pinned: bool, now: datetime) -> Running:
    held = _held(needs, item)
    free = _free_room(needs, item, held)
    offer = item.planned.quote.offer if item.planned.quote is not None else None
    performance = 1.0 if offer is None else offer.performance
    region = item.node.cell.rsplit("/", 1)[-1]
    spot = item.node.option is PurchaseOption.SPOT
    kinds = [
        index
        for index, kind in enumerate(needs.kinds)
        if free is not None
        and free.holds(needs.shapes[kind.shape]) > 0
        and kind.placement.allows(item.provider, region)
        and performance >= kind.min_performance
        and not (kind.is_storage and spot)
    ]
    wanted = {needs.kinds[index].shape for index in kinds}
    loss = item.loss_within(needs.hours, policy)
    supply = Supply(
        provider=item.provider,
        spot=spot,
        group=lost_together(item.correlation_group, spot=spot) if loss > 1e-9 else None,
        pools=needs.pools_of(kinds),
    )
    fillings = (
        patterns(free, needs.shapes, tuple(i in wanted for i in range(len(needs.shapes)))) if free is not None else ()
    )
    price = float(item.node.hourly_price.amount)
    sunk = item.committed_for(now).total_seconds() / 3600 / policy.moves.expected_stay_hours
    return Running(
        item=item,
        supply=supply,
        held=held,
        patterns=fillings,
        price=price,
        release_cost=price * (policy.churn_penalty + min(1.0, sunk)) + _move_cost(policy, item),
        loss=loss,
        pinned=pinned,
    )


def _held(needs: Needs, item: InventoryNode) -> tuple[int, ...]:
    """By pool. Shards of another type than is asked for now are none of what is wanted, and are replaced; but a disk of
    another size stays, with the data on it.
    """
    held = [0] * len(needs.pools)
    for slot in item.slots:
        index = needs.index_of.get(slot.pool)
        if index is not None and (needs.asks_for(slot) or needs.pools[index].target.pool.shard_type.is_storage):
            held[index] += slot.count
    return tuple(held)


def _free_room(needs: Needs, item: InventoryNode, held: Sequence[int]) -> Resources | None:
    """None where shards are on the node that nobody asks for any more, for their pool or their type is another: their
    size is not known here.
    """
    if not all(needs.asks_for(slot) for slot in item.slots):
        return None
    room = left_over(item.node.resources, (item.grown,), (1,))
    for pool, count in served(held):
        if room is not None:
            room = left_over(room, (needs.shapes[needs.pools[pool].shape],), (count,))
    return room


def _move_cost(policy: PlanPolicy, item: InventoryNode) -> float:
    """Per hour of the expected stay, for every shard in use."""
    terms = policy.moves
    once = (terms.egress_gib + item.memory_gib) * float(terms.egress_price_per_gib) + float(terms.downtime_cost)
    double = terms.double_pay_hours * float(item.node.hourly_price.amount) / max(1, item.shards)
    saving = policy.min_move_saving * float(item.node.hourly_price.amount) / max(1, item.shards)
    return item.shards_in_use * ((once + double) / terms.expected_stay_hours + saving)


def reference_prices(needs: Needs, candidates: Sequence[Candidate], running: Sequence[Running]) -> tuple[float, ...]:
    offered = cheapest_offers(needs, candidates)

    def cheapest(index: int) -> float:
        paid = [node.price / sum(node.held) for node in running if node.held[index]]
        return min((price for price in (offered[index], *paid) if 0 < price < inf), default=0.0)

    found = [cheapest(index) for index in range(len(needs.pools))]
    known = [price for price in found if price > 0]
    return tuple(price or (min(known) if known else 1.0) for price in found)


def cheapest_offers(needs: Needs, candidates: Sequence[Candidate]) -> list[float]:
    """Per pool, the least price above zero of a shard-hour on a full unit; infinite where none is offered."""
    by_supply: dict[Supply, list[float]] = {}
    for candidate in candidates:
        least = by_supply.setdefault(candidate.supply, [inf] * len(needs.shapes))
        for shape, slots in enumerate(candidate.slots):
            if slots and candidate.price > 0:
                least[shape] = min(least[shape], candidate.price / slots)
    found = [inf] * len(needs.pools)
    for supply, least in by_supply.items():
        for pool in supply.pools:
            found[pool] = min(found[pool], least[needs.pools[pool].shape])
    return found


@dataclass(frozen=True)
class Standing:
    """What a choice gives each pool."""

    shards: tuple[int, ...]
    exposed: dict[int, dict[str, int]]
    """[pool][correlation group] -> its shards there."""

    def groups(self, pool: int) -> dict[str, int]:
        return self.exposed.get(pool, {})


def standing(programme: Programme, choice: Choice) -> Standing:
    shards = [0] * len(programme.needs.pools)
    exposed: dict[int, dict[str, int]] = {}

    def count(supply: Supply, on_it: Sequence[tuple[int, int]]) -> None:
        for pool, number in on_it:
            shards[pool] += number
            if supply.group is not None:
                groups = exposed.setdefault(pool, {})
                groups[supply.group] = groups.get(supply.group, 0) + number

    for node, kept, added in zip(programme.running, choice.kept, choice.added, strict=True):
        if kept:
            count(node.supply, served([held + new for held, new in zip(node.held, added, strict=True)]))
    for unit in choice.bought:
        count(programme.candidates[unit.candidate].supply, unit.served)
    return Standing(tuple(shards), exposed)


def shortfall_limit(need: PoolNeed) -> float:
    """Expected shards missing per step that the risk class accepts."""
    return need.risk.max_shortfall * need.mean_demand


def shortfall_weight(need: PoolNeed) -> float:
    """What one shard of expected shortfall beyond the limit weighs, in reference prices."""
    return min(1e6, RISK * max(1, need.desired) / max(shortfall_limit(need), 1e-4))


def quantile_kept(programme: Programme, pool: int, shards: int, groups: dict[str, int]) -> float:
    """Coverage, less the probability of losing a group without which the pool would fall below what is desired."""
    need = programme.needs.pools[pool]
    exposed = sum(programme.group_loss[group] for group, lost in groups.items() if shards - lost < need.desired)
    return need.covered(shards) - exposed


def expected_short(programme: Programme, pool: int, shards: int, groups: dict[str, int]) -> float:
    need = programme.needs.pools[pool]
    base = need.short(shards)
    return base + sum(
        programme.group_loss[group] * LOST_SHARE * (need.short(max(0, shards - lost)) - base)
        for group, lost in groups.items()
    )


def pool_cost(programme: Programme, pool: int, shards: int, groups: dict[str, int]) -> float:
    """What is missing to a pool's promises with so many shards, of which ``groups`` may be lost together; in currency
    per hour.
    """
    need = programme.needs.pools[pool]
    short = expected_short(programme, pool, shards, groups)
    deficit = max(0.0, programme.asked_quantile(pool) - quantile_kept(programme, pool, shards, groups))
    weight = (
        MISSING * max(0, need.desired - shards)
        + programme.policy.shortfall_factor * short
        + shortfall_weight(need) * max(0.0, short - shortfall_limit(need))
        + QUANTILE * deficit * need.desired
        + IDLE * shards
    )
    return programme.reference[pool] * weight


def objective(programme: Programme, choice: Choice) -> float:
    """What the programme minimises, in currency per hour, risk priced in."""
    total = sum(programme.candidates[unit.candidate].score for unit in choice.bought)
    for node, kept in zip(programme.running, choice.kept, strict=True):
        total += node.price if kept else node.release_cost
    there = standing(programme, choice)
    return total + sum(
        pool_cost(programme, pool, there.shards[pool], there.groups(pool)) for pool in range(len(there.shards))
    )


def leaves_short(programme: Programme, choice: Choice) -> dict[int, int]:
    """Pool -> its desired shards that the choice does not bring."""
    there = standing(programme, choice).shards
    return {
        index: need.desired - there[index]
        for index, need in enumerate(programme.needs.pools)
        if there[index] < need.desired
    }


def hourly_cost(programme: Programme, choice: Choice) -> float:
    """Prices only."""
    bought = sum(programme.candidates[unit.candidate].price for unit in choice.bought)
    return bought + sum(node.price for node, kept in zip(programme.running, choice.kept, strict=True) if kept)
