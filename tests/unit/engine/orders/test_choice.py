"""What an order comes to, and which orders make no sense."""

from pathlib import Path

import pytest

from engine.clock import ManualClock
from engine.errors import ConcurrentUpdate, ShardwrightError, UnknownName, UsageError
from engine.model.capacity import Placement
from engine.model.ids import NodeId, PoolId
from engine.model.order import Order
from engine.model.placement import NodeState
from engine.model.plan import PlannedNode, ShardSlot
from engine.orders.choice import Choice, SeenFleet, choose
from engine.planner.inventory import Inventory, InventoryNode
from engine.planner.policy import PlanPolicy
from engine.store.database import Database, metadata
from engine.store.shard_map import ShardMap
from tests.small_orders import API, AWS, AZURE, GCP, NOW, drain_order, fill, move_order

SLOTS = (ShardSlot(pool=PoolId("web"), shard_type="cpu.small", count=2),)


@pytest.fixture
def shard_map(tmp_path: Path) -> ShardMap:
    database = Database(f"sqlite:///{tmp_path / 'store.sqlite'}")
    metadata.create_all(database.engine)
    found = ShardMap(database, ManualClock(NOW))
    fill(found)
    return found


def chosen(shard_map: ShardMap, order: Order, placement: Placement | None = None, *bought: NodeId) -> Choice:
    nodes = (shard_map.node(name) for name in bought)
    inventory = Inventory(
        nodes=tuple(
            InventoryNode(node=node, slots=SLOTS, planned=PlannedNode(node=node, slots=SLOTS, quote=None, token=""))
            for node in nodes
        )
    )
    placements = {} if placement is None else {PoolId("web"): placement}
    return choose(order, SeenFleet.of(shard_map, inventory, frozenset()), placements, PlanPolicy(), NOW)


def test_it_goes_where_an_evacuation_would_send_it_and_why_is_told(shard_map: ShardMap) -> None:
    one = chosen(shard_map, move_order()).intentions[0]
    assert (one.request.source, one.request.destination) == (AWS, AZURE)
    assert one.why == "another provider (azure), free room, 0.03 USD per hour for the node"
    assert one.request.gate is None, "nothing is known of nodes that no plan has bought"


@pytest.mark.parametrize("to", ["gcp", "sw-gcp"])
def test_a_provider_or_a_node_may_be_named(shard_map: ShardMap, to: str) -> None:
    assert chosen(shard_map, move_order(to)).intentions[0].request.destination == GCP


def test_the_gate_is_the_planners_and_stops_no_operator(shard_map: ShardMap) -> None:
    one = chosen(shard_map, move_order("azure"), None, AWS, AZURE).intentions[0]
    gate = one.request.gate
    assert gate is not None
    assert gate.saving.amount * 40 == 24 * 1, "half of 0.05 an hour, for 24 hours, into room that is paid for anyway"
    assert gate.passes
    costs = PlanPolicy().moves.model_copy(update={"egress_gib": 100.0})
    bought = Inventory(nodes=tuple(_bought(shard_map, name) for name in (AWS, AZURE)))
    fleet = SeenFleet.of(shard_map, bought, frozenset())
    dear = choose(move_order("azure"), fleet, {}, PlanPolicy(moves=costs), NOW)
    assert [(one.request.gate and one.request.gate.passes) for one in dear.intentions] == [False]


def _bought(shard_map: ShardMap, name: NodeId) -> InventoryNode:
    node = shard_map.node(name)
    return InventoryNode(node=node, slots=SLOTS, planned=PlannedNode(node=node, slots=SLOTS, quote=None, token=""))


def test_a_drain_sends_everything_away_and_what_finds_no_place_is_named(shard_map: ShardMap) -> None:
    everything = chosen(shard_map, drain_order())
    assert [one.request.destination for one in everything.intentions] == [AZURE, AZURE]
    shard_map.update_node(AZURE, state=NodeState.DRAINING)
    nowhere = chosen(shard_map, drain_order(), Placement(providers=("azure",)))
    assert nowhere.intentions == ()
    why = f"{AZURE}: it is draining; {GCP}: pool web may not be there"
    assert [(one.shard, one.why) for one in nowhere.stranded] == [("sw-aws-s0", why), ("sw-aws-s1", why)]


@pytest.mark.parametrize(
    ("order", "kind", "said"),
    [
        (move_order("mars"), UnknownName, "aws, azure, gcp"),
        (move_order(AWS), UsageError, "already"),
        (move_order().model_copy(update={"component": API.model_copy(update={"index": 7})}), UnknownName, "api/7"),
        (drain_order(NodeId("sw-none")), UnknownName, "sw-none"),
    ],
)
def test_orders_that_make_no_sense(shard_map: ShardMap, order: Order, kind: type[ShardwrightError], said: str) -> None:
    with pytest.raises(kind, match=said):
        chosen(shard_map, order)


@pytest.mark.parametrize(
    ("state", "kind"),
    [(NodeState.RECLAIMING, ConcurrentUpdate), (NodeState.EXPECTED, UsageError), (NodeState.GONE, UnknownName)],
)
def test_what_cannot_be_drained(shard_map: ShardMap, state: NodeState, kind: type[ShardwrightError]) -> None:
    shard_map.update_node(GCP, state=state)
    with pytest.raises(kind):
        chosen(shard_map, drain_order(GCP))
