"""A control plane that is a thread: it has the state, and does what it is asked for as a test says."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.app.configured import load, open_store
from engine.model.order import Order, OrderState
from engine.store.opened import Store
from engine.store.state_lock import hold_state

Take = Callable[[Store, Order, threading.Event], None]
"""Of one order that nobody has taken yet; the event is set when the control plane is to end."""


@contextmanager
def obeying(config: Path, take: Take) -> Iterator[None]:
    ready, over = threading.Event(), threading.Event()

    def run() -> None:
        with open_store(load(config)) as store, hold_state(store.database):
            ready.set()
            while not over.wait(0.05):
                for order in store.orders.open():
                    if order.state is OrderState.ASKED:
                        take(store, order, over)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(20)
    try:
        yield
    finally:
        over.set()
        thread.join(20)
