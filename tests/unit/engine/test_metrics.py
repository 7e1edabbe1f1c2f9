"""Metrics say what the values say."""

import pytest
from prometheus_client import REGISTRY

from engine import metrics
from engine.errors import NoOfferFits
from engine.market.discovery import MarketView, ProviderFailure
from engine.model.ids import NodeId
from engine.model.market import ReclaimNotice
from engine.model.move import MovePhase
from engine.model.placement import NodeState
from providers.base import EventKind
from tests.sample_view import NOW, SampleView, cost_move, reclaim_move


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"shardwright_{name}", labels) or 0.0


def test_offers_by_provider_and_a_failed_provider_at_zero() -> None:
    plan = SampleView().plan()
    assert plan is not None
    offers = tuple(decision.offer for decision in plan.decisions)
    metrics.observe_market(MarketView(offers=offers, rejections=plan.rejections, failures=(), made_at=NOW))
    assert value("offers", provider="harbor") == 2
    assert value("offers_refused", provider="agora") == 1

    before = value("provider_failures_total", provider="harbor", kind="ProviderUnavailable")
    failure = ProviderFailure(provider="harbor", kind="ProviderUnavailable", reason="down")
    rest = tuple(offer for offer in offers if offer.provider != "harbor")
    metrics.observe_market(MarketView(offers=rest, rejections=(), failures=(failure,), made_at=NOW))
    assert REGISTRY.get_sample_value("shardwright_offers", {"provider": "harbor"}) == 0
    assert REGISTRY.get_sample_value("shardwright_offers_refused", {"provider": "agora"}) is None
    assert value("provider_failures_total", provider="harbor", kind="ProviderUnavailable") == before + 1


def test_rounds_count_by_outcome_and_only_a_good_one_moves_the_timestamp() -> None:
    ok, refused = value("rounds_total", outcome="ok"), value("rounds_total", outcome="NoOfferFits")
    seconds, count = value("round_duration_seconds_sum"), value("round_duration_seconds_count")
    metrics.observe_round(seconds=12.5, ended_at=1000.0)
    metrics.observe_round(seconds=1.5, ended_at=2000.0, error=NoOfferFits("nothing fits"))
    assert value("rounds_total", outcome="ok") == ok + 1
    assert value("rounds_total", outcome="NoOfferFits") == refused + 1
    assert value("round_duration_seconds_sum") == seconds + 14
    assert value("round_duration_seconds_count") == count + 2
    assert value("last_round_timestamp_seconds") == 1000.0


def test_a_plan_and_its_targets() -> None:
    view = SampleView()
    plan = view.plan()
    assert plan is not None
    metrics.observe_targets(view.targets())
    metrics.observe_plan(plan)
    pool = plan.pools[1].pool
    assert value("pool_shards", pool=pool, kind="planned") == 3
    assert value("pool_shards", pool=pool, kind="current") == 1
    assert value("pool_shards", pool=pool, kind="desired") == view.targets()[1].desired
    assert value("pool_shortfall_probability", pool=pool) == pytest.approx(0.09)
    assert value("plan_cost_currency_units_per_hour", currency="USD") == pytest.approx(0.4379)
    assert value("plan_generation") == 2


def test_the_fleet_as_it_stands() -> None:
    view = SampleView()
    shards = [row.shard for row in view.shards()]
    metrics.observe_fleet(view.nodes(), shards)
    assert value("nodes", provider="azure", state="joined") == 1
    assert value("shards", state="ready") == 1
    gone = [node.model_copy(update={"state": NodeState.GONE}) for node in view.nodes()]
    metrics.observe_fleet(gone, ())
    assert REGISTRY.get_sample_value("shardwright_nodes", {"provider": "azure", "state": "joined"}) is None
    assert REGISTRY.get_sample_value("shardwright_shards", {"state": "ready"}) == 0


def test_replicas_by_whether_their_name_leads_to_them() -> None:
    rows = [(row.component, row.standing) for row in SampleView().shards() if row.component and row.standing]
    metrics.observe_replicas(rows)
    component = "/".join(str(rows[1][0]).removeprefix("shard://").split("/")[:-1])
    same = [standing.serves for name, standing in rows if str(name).startswith(f"shard://{component}/")]
    assert value("replicas", component=component, serves="no") == 1
    assert value("replicas", component=component, serves="yes") == len(same) - 1
    metrics.observe_replicas([])
    assert REGISTRY.get_sample_value("shardwright_replicas", {"component": component, "serves": "no"}) is None


def test_moves_count_by_cause_and_end_and_measure_downtime_and_bytes() -> None:
    before = value("move_downtime_seconds_sum", cause="reclaim")
    quick = value("move_downtime_seconds_bucket", cause="reclaim", le="0.1")
    aborted = value("moves_total", cause="cost", phase="aborted")
    memory = value("move_bytes_total", kind="memory")
    metrics.observe_move(reclaim_move())
    metrics.observe_move(cost_move().model_copy(update={"phase": MovePhase.ABORTED}))
    assert value("move_downtime_seconds_sum", cause="reclaim") == pytest.approx(before + 0.084)
    assert value("move_downtime_seconds_bucket", cause="reclaim", le="0.1") == quick + 1
    assert value("moves_total", cause="cost", phase="aborted") == aborted + 1
    assert value("move_bytes_total", kind="memory") == memory + 2 * 134_217_728


def test_a_reclaim_counts_for_its_provider() -> None:
    before = value("reclaim_notices_total", provider="aws")
    metrics.observe_reclaim(ReclaimNotice(node=NodeId("n"), provider="aws", seen_at=NOW, at=NOW))
    assert value("reclaim_notices_total", provider="aws") == before + 1


def test_what_a_provider_tells_counts_by_kind() -> None:
    before = value("provider_events_total", provider="agora", kind="price")
    metrics.observe_provider_event("agora", EventKind.PRICE)
    assert value("provider_events_total", provider="agora", kind="price") == before + 1


def test_bills_by_provider_and_what_does_not_reconcile() -> None:
    bills = SampleView().bills()
    for _ in range(2):  # the second time changes nothing
        metrics.observe_bills(bills.report, bills.reconciliation)
    assert value("cost_currency_units", provider="aws", currency="USD") == pytest.approx(0.21)
    assert value("invoice_difference_currency_units", provider="agora", currency="USD") == pytest.approx(-0.02)
    assert value("invoice_difference_currency_units", provider="aws", currency="USD") == 0
    assert value("invoices_not_reconciled") == 1
