"""Orders given on the command line: put into the store, and followed until they have ended."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

from engine.cli.console import Output, err, print_json
from engine.clock import SystemClock

if TYPE_CHECKING:
    from engine.app.orders import Watched
    from engine.model.order import Order
    from engine.store.opened import Store

T = TypeVar("T")


def ask(
    store: "Store",
    order: "Order",
    output: Output,
    watch: "Callable[[Iterator[Watched]], T]",
    *,
    wait: bool,
    look: str,
    give_up: str = "",
) -> T | None:
    """What ``watch`` makes of its stages; None where nobody shall wait. ``look``: the command that shows how it goes.

    Raises ShardwrightError where no control plane runs, and what kept the order from being carried out.
    """
    from engine.app.orders import follow_order, require_control_plane

    if wait:
        require_control_plane(store, f"shardwright {order}")
    store.orders.put(order)
    if not wait:
        if output is Output.JSON:
            print_json("order", order)
        else:
            err().print(f"{order.id}: {order} is asked for; {look}", soft_wrap=True)
        return None
    try:
        return watch(follow_order(store, order, SystemClock()))
    except KeyboardInterrupt:
        ways = ", ".join(way for way in (look, give_up) if way)
        err().print(f"nobody waits any more, and it goes on: {ways}", soft_wrap=True)
        raise
