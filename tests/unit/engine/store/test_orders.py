import pytest

from engine.errors import UnknownName
from engine.model.ids import OrderId
from engine.model.order import OrderState
from engine.store.database import Database
from engine.store.orders import Orders
from tests.small_orders import drain_order, move_order


def test_what_is_asked_waits_until_somebody_takes_it(store: Database) -> None:
    orders = Orders(store)
    orders.put(move_order("azure"))
    orders.put(drain_order())
    assert orders.asked() == (move_order("azure"), drain_order())
    taken = move_order("azure").model_copy(update={"state": OrderState.TAKEN})
    orders.put(taken)
    assert orders.asked() == (drain_order(),)
    assert orders.get(taken.id) == taken
    with pytest.raises(UnknownName):
        orders.get(OrderId("other"))
