"""The read side over a real store."""

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from engine.api.stored_view import MOVES_SHOWN, StoredView
from engine.clock import ManualClock
from engine.model.billing import BillDelivery, BillFormat, Invoice
from engine.model.ids import MoveId, NodeId, PoolId, ShardId
from engine.model.money import usd
from engine.model.placement import NodeState
from engine.store.opened import Store, opened_store
from tests.sample_view import MONTH, NOW, SMALL, WEB, SampleView, reclaim_move

SERVED = {PoolId(WEB.id): ("shop/web",)}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with opened_store(f"sqlite:///{tmp_path / 'store.sqlite'}", ManualClock(NOW)) as opened:
        yield opened


def test_a_nodes_cost_goes_to_the_workload_it_was_bought_for_even_when_nobody_knows_the_node_any_more(
    store: Store,
) -> None:
    view, sample = StoredView("a fleet", store, SERVED), SampleView()
    plan = sample.plan()
    assert plan is not None
    store.plans.make_target(plan.model_copy(update={"parent": None}))
    delivery = BillDelivery(
        provider="gcp", format=BillFormat.FOCUS, content_type="text/csv", content=b"", sha256="0" * 64,
        invoice=Invoice(issuer="gcp issuer", invoice_id="INV-GCP-202611", billing_period=MONTH, total=usd("0.44")),
        delivered_at=NOW,
    )  # fmt: skip
    store.ledger.append(delivery, [one for one in sample.charges() if one.provider_name == "gcp"])
    bills = view.bills()
    lines = {line.workload: (line.billed.amount, line.rows) for line in bills.report.lines}
    assert lines == {"shop/web": (Decimal("0.4422"), 1), "(rounding)": (Decimal("-0.0022"), 1)}
    assert bills.reconciliation.reconciled


def test_all_moves_are_counted_and_the_latest_are_shown(store: Store) -> None:
    view = StoredView("a fleet", store, SERVED)
    for number in range(MOVES_SHOWN + 3):
        request = reclaim_move().request.model_copy(update={"id": MoveId(f"m{number}")})
        finished = NOW + timedelta(minutes=number)
        store.moves.put(reclaim_move().model_copy(update={"request": request, "finished_at": finished}))
    assert (len(view.moves()), view.moves_ended()) == (MOVES_SHOWN, MOVES_SHOWN + 3)


def test_a_shard_is_shown_with_its_node_as_long_as_it_is_there(store: Store) -> None:
    view = StoredView("a fleet", store, SERVED)
    for node in SampleView().nodes()[1:3]:
        store.shard_map.put_node(node)
    first, second = (NodeId(node.id) for node in SampleView().nodes()[1:3])
    store.shard_map.add_shard(ShardId("s1"), shard_type="cpu.small", pool=WEB.id, node=second, nominal=SMALL)
    for node_id in (first, second):
        store.shard_map.update_node(node_id, state=NodeState.GONE)
    assert [(row.shard.id, row.node.id) for row in view.shards()] == [("s1", second)]
    assert [node.id for node in store.shard_map.hosts()] == [second]
