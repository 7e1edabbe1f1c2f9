"""Tags, addresses and ingress that every program uses alike."""

from ipaddress import IPv4Network

from engine.model.market import PurchaseOption
from engine.model.placement import Cell
from engine.model.plan import PlannedNode

NODE_TAG = "shardwright-node"
TOKEN_TAG = "shardwright-token"  # noqa: S105 (a tag's name)
CELL_TAG = "shardwright-cell"
OPTION_TAG = "shardwright-option"
PRICE_TAG = "shardwright-hourly-price"
"""Set when a node is bought; the programs ignore later changes, since a kept node has no quote any more."""

CELL_NETWORK = IPv4Network("10.42.0.0/16")
NODE_DISK_GIB = 30


def node_tags(cell: Cell, planned: PlannedNode) -> dict[str, str]:
    """Values are text of at most 256 characters, which every provider but Google Cloud's labels takes as it is."""
    tags = {
        NODE_TAG: planned.node.id,
        TOKEN_TAG: planned.token,
        CELL_TAG: cell.id,
        OPTION_TAG: planned.node.option.value,
    }
    if planned.quote is not None:
        tags[PRICE_TAG] = f"{planned.quote.unit_price.amount:f}"
    return tags


def shared_tags(cell: Cell, name: str) -> dict[str, str]:
    """For what all nodes of a cell share; the token lets an interrupted create be found again."""
    return {"Name": f"shardwright-{name}", CELL_TAG: cell.id, TOKEN_TAG: f"shard:{cell.id}:{name}"}


def is_spot(planned: PlannedNode) -> bool:
    return planned.node.option is PurchaseOption.SPOT


def zone_block(zone: str) -> IPv4Network:
    """One /20 of the cell's network per zone, by the zone's last letter or digit, so that it never moves."""
    last = zone[-1:].lower()
    index = ord(last) - ord("a") if last.isalpha() else int(last) if last.isdigit() else 0
    return list(CELL_NETWORK.subnets(new_prefix=20))[index % 16]
