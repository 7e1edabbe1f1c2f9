"""What operators have asked for, as documents; asked by any process, taken by the control plane that has the state."""

from sqlalchemy import Column, String, Table, Text, select

from engine.errors import UnknownName
from engine.model.ids import OrderId
from engine.model.order import Order, OrderState
from engine.store.database import Database, UtcDateTime, metadata

orders = Table(
    "orders",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("state", String(16), nullable=False, index=True),
    Column("asked_at", UtcDateTime, nullable=False),
    Column("document", Text, nullable=False),
)


class Orders:
    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, order: Order) -> None:
        """Add, or replace the order of the same id."""
        row = {"id": order.id, "state": order.state.value, "asked_at": order.asked_at}
        row["document"] = order.model_dump_json()
        insert = self._database.insert(orders).values(row)
        with self._database.transaction() as connection:
            connection.execute(insert.on_conflict_do_update(index_elements=[orders.c.id], set_=row))

    def get(self, order_id: OrderId) -> Order:
        """Raises UnknownName."""
        with self._database.reading() as connection:
            found = connection.execute(select(orders.c.document).where(orders.c.id == order_id)).scalar()
        if found is None:
            raise UnknownName(f"order {order_id} is not known")
        return Order.model_validate_json(found)

    def open(self) -> tuple[Order, ...]:
        """Those that have not ended, oldest first."""
        query = select(orders.c.document).where(orders.c.state != OrderState.ENDED.value)
        with self._database.reading() as connection:
            found = connection.execute(query.order_by(orders.c.asked_at, orders.c.id)).scalars()
            return tuple(Order.model_validate_json(text) for text in found)
