"""Plans as documents, the current target among them, and what each node was bought on."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal

from pydantic import ValidationError
from sqlalchemy import Column, Integer, String, Table, Text, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from engine.errors import ConcurrentUpdate, NotFound, ShardwrightError
from engine.model.ids import NodeId, PlanId
from engine.model.placement import NodeState
from engine.model.plan import Plan, PlannedNode
from engine.model.value import Value
from engine.store.database import Database, UtcDateTime, metadata
from engine.store.shard_tables import nodes as known_nodes

plans = Table(
    "plans",
    metadata,
    Column("id", String(128), primary_key=True),
    Column("parent", String(128)),
    Column("generation", Integer, nullable=False, index=True),
    Column("made_at", UtcDateTime, nullable=False),
    Column("document", Text, nullable=False),
)

plan_target = Table(
    "plan_target",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("plan", String(128), nullable=False),
    Column("generation", Integer, nullable=False),
)
"""One row: the plan that is to be made real."""

purchases = Table(
    "purchases",
    metadata,
    Column("node", String(128), primary_key=True),
    Column("plan", String(128), nullable=False, index=True),
    Column("planned", Text, nullable=False),
)
"""Each node as it was bought, quote and all; later plans that keep it no longer name the quote."""

_ASKED_AT_ONCE = 1000
"""Nodes, of a database that takes some ten thousand names in one question; a ledger knows all there ever were."""


class PlanDocument(Value):
    schema_version: Literal[1] = 1
    plan: Plan


class PlanStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    def save(self, plan: Plan) -> None:
        """Keep the plan. Saving the same plan again changes nothing."""
        row = {
            "id": plan.id,
            "parent": plan.parent,
            "generation": plan.generation,
            "made_at": plan.made_at,
            "document": PlanDocument(plan=plan).model_dump_json(),
        }
        with self._database.transaction() as connection:
            if connection.execute(select(plans.c.id).where(plans.c.id == plan.id)).first() is None:
                connection.execute(insert(plans).values(row))

    def get(self, plan: PlanId) -> Plan:
        """Raises NotFound."""
        with self._database.reading() as connection:
            document = connection.execute(select(plans.c.document).where(plans.c.id == plan)).scalar()
        if document is None:
            raise NotFound(f"no plan {plan}", next_step="shardwright plan")
        return _parse(document, plan)

    def latest(self, count: int) -> tuple[Plan, ...]:
        """Newest first."""
        query = select(plans.c.id, plans.c.document).order_by(plans.c.generation.desc(), plans.c.made_at.desc())
        with self._database.reading() as connection:
            rows = connection.execute(query.limit(count)).all()
        return tuple(_parse(row.document, row.id) for row in rows)

    def target(self) -> Plan | None:
        """The current target; None before the first."""
        query = select(plans.c.document, plans.c.id).join(plan_target, plan_target.c.plan == plans.c.id)
        with self._database.reading() as connection:
            row = connection.execute(query).first()
        return None if row is None else _parse(row.document, row.id)

    def make_target(self, plan: Plan) -> PlanId:
        """Compare and swap: the plan becomes the target if its parent is the target still (or it is it already).

        Records what its nodes were bought on. Raises ConcurrentUpdate.
        """
        self.save(plan)
        try:
            with self._database.transaction() as connection:
                current = connection.execute(select(plan_target.c.plan)).scalar()
                if current == plan.id:
                    return plan.id
                swapped = 0
                if plan.parent is None and current is None:
                    row = {"id": 1, "plan": plan.id, "generation": plan.generation}
                    connection.execute(insert(plan_target).values(row))  # or IntegrityError, where another was first
                    swapped = 1
                elif plan.parent is not None:
                    swap = update(plan_target).where(plan_target.c.id == 1, plan_target.c.plan == plan.parent)
                    swapped = connection.execute(swap.values(plan=plan.id, generation=plan.generation)).rowcount
                if swapped != 1:
                    raise _overtaken(plan, current)
                bought = [
                    {"node": planned.node.id, "plan": plan.id, "planned": planned.model_dump_json()}
                    for cell in plan.cells
                    for planned in cell.nodes
                    if planned.quote is not None
                ]
                if bought:
                    connection.execute(insert(purchases), bought)
        except IntegrityError as error:
            raise _overtaken(plan, None) from error
        return plan.id

    def bought(self, nodes: Sequence[NodeId]) -> tuple[PlannedNode, ...]:
        """Each of these nodes as it was bought, in the order of their ids; unknown ones are left out."""
        found: list[tuple[str, str]] = []
        for start in range(0, len(nodes), _ASKED_AT_ONCE):
            asked = purchases.c.node.in_(nodes[start : start + _ASKED_AT_ONCE])
            with self._database.reading() as connection:
                rows = connection.execute(select(purchases.c.node, purchases.c.planned).where(asked))
                found += [(row.node, row.planned) for row in rows]
        return tuple(PlannedNode.model_validate_json(text) for _, text in sorted(found))

    def bought_at(self, nodes: Sequence[NodeId]) -> Mapping[NodeId, datetime]:
        """When the plan was made that bought each of these nodes; unknown ones are left out."""
        query = select(purchases.c.node, plans.c.made_at).join(plans, plans.c.id == purchases.c.plan)
        with self._database.reading() as connection:
            rows = connection.execute(query.where(purchases.c.node.in_(nodes)))
            return {NodeId(row.node): row.made_at for row in rows}

    def forget(self, *, before: datetime, most: int) -> int:
        """Drop plans that were made earlier, the oldest first; how many. What nodes were bought on stays.

        So does the target, and a plan that bought a node which is yet to join: when it did is read from it.
        """
        awaited = (
            select(purchases.c.plan)
            .join(known_nodes, known_nodes.c.id == purchases.c.node)
            .where(known_nodes.c.state == NodeState.EXPECTED.value)
        )
        old = (
            select(plans.c.id)
            .where(plans.c.made_at < before)
            .where(plans.c.id.not_in(select(plan_target.c.plan)), plans.c.id.not_in(awaited))
            .order_by(plans.c.made_at)
            .limit(most)
        )
        with self._database.transaction() as connection:
            return connection.execute(delete(plans).where(plans.c.id.in_(old))).rowcount


def _overtaken(plan: Plan, current: str | None) -> ConcurrentUpdate:
    return ConcurrentUpdate(
        f"plan {plan.id} was made for {plan.parent or 'an empty state'}, but the target is {current or 'another one'}",
        why="another round has replaced it in the meantime",
        next_step="plan again",
    )


def _parse(document: str, plan: str) -> Plan:
    try:
        return PlanDocument.model_validate_json(document).plan
    except ValidationError as error:
        raise ShardwrightError(
            f"plan {plan} in the control store cannot be read",
            why=f"{error.error_count()} field(s) do not fit this version's schema: {error.errors()[0]['loc']}",
            next_step="use the version of shardwright that wrote it",
        ) from error
