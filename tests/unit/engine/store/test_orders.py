import pytest

from engine.errors import UnknownName
from engine.model.ids import OrderId
from engine.model.order import OrderState
from engine.store.database import Database
from engine.store.orders import Orders
from tests.small_orders import drain_order, move_order


def test_an_order_is_open_until_it_has_ended(store: Database) -> None:
    orders = Orders(store)
    orders.put(move_order("azure"))
    orders.put(drain_order())
    assert orders.open() == (move_order("azure"), drain_order())
    taken = move_order("azure").model_copy(update={"state": OrderState.TAKEN})
    orders.put(taken)
    assert orders.open() == (taken, drain_order())
    assert orders.get(taken.id) == taken
    orders.put(taken.model_copy(update={"state": OrderState.ENDED}))
    assert orders.open() == (drain_order(),)
    with pytest.raises(UnknownName):
        orders.get(OrderId("other"))
