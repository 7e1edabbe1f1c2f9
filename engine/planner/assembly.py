"""From a choice to a plan's cells: names, tokens, slots; so specific that an executor makes no choices."""

import hashlib
from collections.abc import Mapping, Sequence

from engine.model.ids import CellId, NodeId, PlanId
from engine.model.placement import Cell, Node
from engine.model.plan import CellPlan, Plan, PlannedNode, ShardSlot
from engine.planner.inventory import Inventory
from engine.planner.programme import Choice, Programme, served


def node_token(cell: CellId, node: NodeId, generation: int) -> str:
    """Idempotency token and provider tag of a node's create."""
    return f"shard:{cell}:{node}:{generation}"


def assemble_cells(
    programme: Programme,
    choice: Choice,
    inventory: Inventory,
    parent: Plan | None,
    cells: Mapping[CellId, Cell],
    generation: int,
) -> tuple[CellPlan, ...]:
    """Every cell that has nodes, or had some in the inventory or the parent; ordered by id."""
    nodes = [*_kept(programme, choice), *_bought(programme, choice, generation)]
    named = {planned.node.cell for planned in nodes} | {item.node.cell for item in inventory.nodes}
    if parent is not None:
        named |= {cell.cell.id for cell in parent.cells}
    return tuple(
        CellPlan(
            cell=cells[cell],
            generation=generation,
            nodes=tuple(sorted((p for p in nodes if p.node.cell == cell), key=lambda p: p.node.id)),
        )
        for cell in sorted(named)
    )


def _kept(programme: Programme, choice: Choice) -> list[PlannedNode]:
    return [
        PlannedNode(
            node=running.item.node,
            slots=_with_added(programme, running.item.slots, added),
            quote=None,
            token=running.item.planned.token,
        )
        for running, stays, added in zip(programme.running, choice.kept, choice.added, strict=True)
        if stays
    ]


def _bought(programme: Programme, choice: Choice, generation: int) -> list[PlannedNode]:
    planned = []
    for number, unit in enumerate(choice.bought, start=1):
        quote = programme.candidates[unit.candidate].quote
        offer = quote.offer
        name = NodeId(f"{programme.policy.node_prefix}-{generation}-{number}")
        planned.append(
            PlannedNode(
                node=Node(
                    id=name,
                    cell=offer.cell,
                    zone=offer.zone,
                    instance_type=offer.instance_type,
                    option=offer.option,
                    hourly_price=quote.unit_price,
                    resources=offer.resources,
                ),
                slots=_with_added(programme, (), unit.shards),
                quote=quote,
                token=node_token(offer.cell, name, generation),
            )
        )
    return planned


def _with_added(programme: Programme, slots: Sequence[ShardSlot], added: Sequence[int]) -> tuple[ShardSlot, ...]:
    """Existing slots in their order, grown where their pool got more of their type, then new ones."""
    pools = [(programme.needs.pools[index].target.pool, count) for index, count in served(added)]
    more = {(pool.id, pool.shard_type.name): count for pool, count in pools}
    grown = [
        slot.model_copy(update={"count": slot.count + more.pop((slot.pool, slot.shard_type), 0)}) for slot in slots
    ]
    new = [ShardSlot(pool=pool, shard_type=shard_type, count=count) for (pool, shard_type), count in more.items()]
    return (*grown, *new)


def plan_id(cells: Sequence[CellPlan], parent: Plan | None, generation: int, seed: int) -> PlanId:
    """The same decision on the same parent has the same id, so that a repeated step finds its own plan."""
    digest = hashlib.sha256()
    digest.update(f"{parent.id if parent is not None else ''}|{generation}|{seed}".encode())
    for cell in cells:
        digest.update(cell.model_dump_json().encode())
    return PlanId(f"plan-{generation}-{digest.hexdigest()[:12]}")
