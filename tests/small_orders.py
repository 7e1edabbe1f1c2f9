"""Three nodes of three providers with two components on the first, in a real store: what orders are tested on."""

from datetime import UTC, datetime

from engine.clock import Clock
from engine.model.capacity import Resources
from engine.model.ids import CellId, MoveId, NodeId, OrderId, PoolId, ShardId
from engine.model.market import PurchaseOption
from engine.model.money import usd
from engine.model.move import MovePhase, MoveReport, MoveRequest
from engine.model.order import Order, OrderKind, Size
from engine.model.placement import ComponentName, Node, NodeState, ShardState
from engine.model.plan import MoveCause
from engine.store.database import Database
from engine.store.shard_map import ShardMap

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
API = ComponentName(namespace="shop", workload="web", component="api", index=0)
SECOND = API.model_copy(update={"index": 1})
SMALL = Resources(vcpus=1, memory_gib=2)
AWS, GCP, AZURE = NodeId("sw-aws"), NodeId("sw-gcp"), NodeId("sw-azure")


def fill(shard_map: ShardMap) -> None:
    for name, cell, price in ((AWS, "aws/1/us", "0.05"), (GCP, "gcp/p/eu", "0.04"), (AZURE, "azure/s/eastus", "0.03")):
        shard_map.put_node(
            Node(
                id=name,
                cell=CellId(cell),
                zone="a",
                instance_type="t",
                option=PurchaseOption.ON_DEMAND,
                hourly_price=usd(price),
                resources=Resources(vcpus=2, memory_gib=8),
                state=NodeState.JOINED,
            )
        )
    for number, component in enumerate((API, SECOND)):
        shard_id = ShardId(f"{AWS}-s{number}")
        shard_map.add_shard(shard_id, shard_type="cpu.small", pool=PoolId("web"), node=AWS, nominal=SMALL)
        shard_map.set_state(shard_id, ShardState.READY)
        shard_map.bind(component, shard_id)


def filled(database: Database, clock: Clock) -> ShardMap:
    shard_map = ShardMap(database, clock)
    fill(shard_map)
    return shard_map


def move_order(to: str | None = None) -> Order:
    return Order(id=OrderId("order-1"), kind=OrderKind.MOVE, asked_at=NOW, component=API, to=to)


def drain_order(node: NodeId = AWS) -> Order:
    return Order(id=OrderId("order-2"), kind=OrderKind.DRAIN, asked_at=NOW, node=node)


def resize_order(size: Size) -> Order:
    return Order(id=OrderId("order-3"), kind=OrderKind.RESIZE, asked_at=NOW, component=API, size=size)


def a_request(name: str = "move-1") -> MoveRequest:
    return MoveRequest(
        id=MoveId(name), shard=ShardId(f"{AWS}-s0"), source=AWS, destination=AZURE, cause=MoveCause.OPERATOR
    )


def a_report(request: MoveRequest, phase: MovePhase = MovePhase.CLEANED, error: str = "") -> MoveReport:
    return MoveReport(
        request=request, phase=phase, strategy="pre-copy", epoch_before=1, epoch_after=2, started_at=NOW,
        finished_at=NOW, downtime_seconds=0.012, memory_bytes=90 << 20, disk_bytes=64 << 20, error=error,
    )  # fmt: skip
