"""How much a node may carry that can be taken back at short notice, so that all of it gets out in time. Pure.

The sum of its shards' memory, as far as it has to be sent, must fit through its link in what is left of the notice once
it has been seen and before the last guest is switched over. Disks are not counted: see docs/design/0009.
"""

from collections.abc import Sequence

from engine.model.capacity import Resources
from engine.model.market import PurchaseOption
from engine.model.placement import Node

SHORTEST_NOTICE_SECONDS = 30.0
"""What Google Cloud and Azure give; AWS gives two minutes."""
RESERVE_SECONDS = 10.0
"""Five until the notice has been seen, five for fencing and switching."""
SENT_SHARE = 0.5
"""Of a guest's memory that is not empty and has to be sent: 54 of 128 MB just booted, measured, and room for more."""


def gets_out(
    memories_gib: Sequence[float], *, bandwidth_mbps: float, notice_seconds: float, sent_share: float = SENT_SHARE
) -> bool:
    """Whether shards of those memories leave a node within its notice."""
    sent = sum(memories_gib) * 2**30 * sent_share
    return sent <= bandwidth_mbps * 1e6 / 8 * max(0.0, notice_seconds - RESERVE_SECONDS)


def admits(
    node: Node, carved: Sequence[Resources], more: Resources, *, notice_seconds: float = SHORTEST_NOTICE_SECONDS
) -> bool:
    """Whether ``node`` may take ``more`` beside what is ``carved``; only spot nodes of known bandwidth refuse."""
    if node.option is not PurchaseOption.SPOT or node.resources.network_mbps <= 0:
        return True
    memories = [one.memory_gib for one in (*carved, more)]
    return gets_out(memories, bandwidth_mbps=node.resources.network_mbps, notice_seconds=notice_seconds)
