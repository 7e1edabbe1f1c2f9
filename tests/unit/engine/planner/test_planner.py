"""One call and one text diff: what plan() decides, why, and what it refuses."""

import difflib
import os
from collections import Counter
from datetime import timedelta
from decimal import Decimal
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from engine.cli.market import plan_tables
from engine.errors import BadUsageData, BudgetExceeded, ConfigurationError, NoOfferFits
from engine.model.capacity import Placement, Resources, RiskClass
from engine.model.ids import OfferId
from engine.model.market import DepthBelief, OwnHistory, PurchaseOption, Quote
from engine.model.money import Money, usd
from engine.model.placement import NodeState
from engine.model.plan import OfferRejection, Plan, Verdict
from engine.planner.inventory import Inventory
from engine.planner.planner import plan
from engine.planner.policy import PlanPolicy, ScoreWeights
from tests.unit.engine.planner.cases import (
    CELLS,
    CRITICAL,
    MEMORY,
    NOW,
    SMALL,
    STANDARD,
    certain,
    demo_market,
    inventory_of,
    offer,
    plan_of,
    pool,
    quote,
    target,
)

GOLDEN = Path(__file__).parent / "golden"
SPREAD = PlanPolicy(max_provider_share=0.34, max_spot_share=0.5)
EIGHT = RiskClass(name="standard", rank=1, quantile=0.9, max_shortfall=0.05)


def _text(made: Plan) -> str:
    """A plan as a reader sees it; without what the solver's clock says."""
    lines = [f"{made.id} after {made.parent}, generation {made.generation}, {made.solver}"]
    lines += [f"cost {made.expected_hourly_cost}/h, leaving {', '.join(made.leaving) or 'nobody'}", ""]
    for cell in made.cells:
        lines.append(f"cell {cell.cell.id}")
        for planned in cell.nodes:
            slots = ", ".join(f"{slot.count} {slot.pool} ({slot.shard_type})" for slot in planned.slots)
            how = "kept" if planned.quote is None else f"bought by {planned.quote.strategy}"
            node = planned.node
            lines.append(f"  {node.id} {node.instance_type} {node.option.value} {node.hourly_price}: {slots}; {how}")
    lines.append("")
    for pool_ in made.pools:
        lines.append(
            f"pool {pool_.pool}: {pool_.planned} of {pool_.desired}, quantile met {pool_.quantile_met:.3f}, "
            f"unserved {pool_.expected_shortfall_share:.5f}"
        )
    lines.append("")
    for decision in made.decisions:
        mark = "x" if decision.verdict is Verdict.CHOSEN else "-"
        lines.append(f"{mark} {decision.offer.id} {decision.units} {decision.price_per_shard_hour}: {decision.reason}")
    lines += ["", *(f"cost of the horizon, {q:.0%}: {money}" for q, money in made.cost_quantiles)]
    return "\n".join(lines) + "\n"


def _agrees_with_golden(name: str, made: Plan) -> None:
    """Set UPDATE_GOLDEN=1 to accept what plan() says now, and read the diff before committing it."""
    path = GOLDEN / f"{name}.txt"
    text = _text(made)
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    expected = path.read_text(encoding="utf-8")
    diff = "".join(difflib.unified_diff(expected.splitlines(True), text.splitlines(True), "golden", "now"))
    assert not diff, diff


def demo_targets():
    return [target(pool("web", risk=EIGHT), 2.0), target(pool("db", MEMORY, CRITICAL), 0.5, seed=3)]


def _options(made: Plan) -> Counter[PurchaseOption]:
    return Counter(planned.node.option for cell in made.cells for planned in cell.nodes)


def _shards_by_provider(made: Plan) -> Counter[str]:
    shares: Counter[str] = Counter()
    for cell in made.cells:
        for planned in cell.nodes:
            shares[cell.cell.provider] += sum(slot.count for slot in planned.slots)
    return shares


def test_five_providers_fixed_spot_and_auction() -> None:
    """Prices and policy alone make the mix."""
    made = plan_of(demo_targets(), demo_market(), SPREAD)
    assert set(_options(made)) == {PurchaseOption.ON_DEMAND, PurchaseOption.SPOT, PurchaseOption.AUCTION}
    desired = sum(outcome.desired for outcome in made.pools)
    assert max(_shards_by_provider(made).values()) <= max(1, int(0.34 * desired))
    assert all(outcome.planned >= outcome.desired for outcome in made.pools)
    _agrees_with_golden("five_providers", made)


def test_a_second_round_with_nothing_to_do_changes_nothing() -> None:
    first = plan_of(demo_targets(), demo_market(), SPREAD)
    second = plan_of(demo_targets(), demo_market(), SPREAD, inventory=inventory_of(first), parent=first)
    assert second.is_noop
    assert second.parent == first.id
    assert second.generation == first.generation + 1

    def tokens(of: Plan) -> list[tuple[str, str]]:
        return [(planned.node.id, planned.token) for cell in of.cells for planned in cell.nodes]

    assert tokens(first) == tokens(second)
    _agrees_with_golden("nothing_to_do", second)


def test_equal_inputs_give_equal_plans() -> None:
    one, two = (plan_of(demo_targets(), demo_market(), SPREAD) for _ in range(2))
    same = {"solve_seconds": 0.0}
    assert one.model_copy(update=same) == two.model_copy(update=same)
    shuffled = plan_of(demo_targets()[::-1], demo_market()[::-1], SPREAD)
    assert shuffled.expected_hourly_cost == one.expected_hourly_cost


def test_the_plan_tells_how_old_the_usage_is_that_it_was_made_from() -> None:
    stale = certain(pool(), 3).model_copy(update={"history_end": NOW - timedelta(hours=5)})
    made = plan_of([stale], demo_market())
    assert made.pools[0].history_age == timedelta(hours=5)
    assert plan_of([certain(pool(), 3)], demo_market()).pools[0].history_age is None
    (pools, _), shown = plan_tables(made), StringIO()
    Console(file=shown, width=200).print(pools)
    assert "5 hours" in shown.getvalue()


def test_names_and_tokens() -> None:
    made = plan_of([certain(pool(), 3)], demo_market(), PlanPolicy(node_prefix="team-a"))
    for cell in made.cells:
        for planned in cell.nodes:
            assert planned.node.id.startswith("team-a-1-")
            assert planned.token == f"shard:{cell.cell.id}:{planned.node.id}:1"
            assert planned.node.cell == cell.cell.id


def test_growth_fills_free_room_before_it_buys() -> None:
    first = plan_of([certain(pool(), 3)], demo_market())
    grown = plan_of([certain(pool(), 4)], demo_market(), inventory=inventory_of(first), parent=first)
    assert not grown.leaving
    assert all(planned.quote is None for cell in grown.cells for planned in cell.nodes)
    assert grown.pools[0].planned == 4
    assert not grown.is_noop or _shards_by_provider(grown) != _shards_by_provider(first)


def test_what_is_not_needed_is_given_back_and_its_cell_emptied() -> None:
    first = plan_of([certain(pool(), 8)], demo_market(), SPREAD)
    less = plan_of([certain(pool(), 2)], demo_market(), SPREAD, inventory=inventory_of(first), parent=first)
    assert less.leaving
    assert less.expected_hourly_cost < first.expected_hourly_cost
    assert [cell.cell for cell in less.cells] == [cell.cell for cell in first.cells], "emptied cells are still named"
    nothing = plan_of([certain(pool(), 0)], [], SPREAD, inventory=inventory_of(less), parent=less)
    assert [cell.nodes for cell in nothing.cells] == [()] * len(first.cells)
    assert nothing.expected_hourly_cost == usd(0)


@pytest.mark.parametrize("state", [NodeState.RECLAIMING, NodeState.GONE])
def test_a_reclaimed_node_is_replaced(state: NodeState) -> None:
    first = plan_of([certain(pool(), 4)], demo_market())
    lost = inventory_of(first).nodes[0]
    rest = inventory_of(first).nodes[1:]
    gone = lost.model_copy(update={"node": lost.node.model_copy(update={"state": state})})
    second = plan_of([certain(pool(), 4)], demo_market(), inventory=Inventory(nodes=(gone, *rest)), parent=first)
    assert second.leaving == (lost.node.id,)
    assert second.pools[0].planned >= 4
    assert any(planned.quote is not None for cell in second.cells for planned in cell.nodes)


def test_idle_nodes_go_although_they_carry_slots() -> None:
    first = plan_of([certain(pool(), 4)], demo_market())
    idle = Inventory(nodes=tuple(n.model_copy(update={"in_use": 0}) for n in inventory_of(first).nodes))
    less = plan_of([certain(pool(), 1)], demo_market(), inventory=idle, parent=first)
    assert len(less.leaving) == len(idle.nodes) - 1


def test_spot_is_spread_and_overbought_rather_than_trusted() -> None:
    """A class that must be sure does not put all on one group that may fall."""
    spot = [
        quote(offer(f"spot-{i}", "0.01", option=PurchaseOption.SPOT, instance_type=f"t{i}"), survival=0.5)
        for i in range(4)
    ]
    sure = quote(offer("sure", "0.10", instance_type="od"))
    critical = plan_of([certain(pool(risk=CRITICAL), 4)], [*spot, sure])
    assert critical.pools[0].quantile_met >= 0.99
    assert critical.pools[0].expected_shortfall_share <= 0.001
    easy = RiskClass(name="batch", rank=2, quantile=0.5, max_shortfall=0.5)
    batch = plan_of([certain(pool(risk=easy), 4)], [*spot, sure])
    assert _options(batch) == {PurchaseOption.SPOT: 2}


def test_what_is_bought_to_keep_is_not_taken_for_lost_with_spot_of_its_group() -> None:
    """Losing the spot of a group breaks the promise; an on-demand unit of the same type and zone keeps it."""
    spot = quote(offer("spot", "0.02", option=PurchaseOption.SPOT), survival=0.001)
    kept = quote(offer("on-demand", "0.10"), survival=0.9998)
    made = plan_of([certain(pool(), 4)], [spot, kept])
    (judged,) = made.pools
    assert judged.quantile_met >= STANDARD.quantile
    assert judged.expected_shortfall_share <= STANDARD.max_shortfall
    assert {decision.offer.id: decision.units for decision in made.decisions}["on-demand"] >= 1


def test_pools_share_a_node_where_that_is_cheaper() -> None:
    both = [certain(pool("a"), 1), certain(pool("b", MEMORY), 1)]
    made = plan_of(both, demo_market())
    nodes = [planned for cell in made.cells for planned in cell.nodes]
    assert len(nodes) == 1
    assert [slot.count for slot in nodes[0].slots] == [1, 1]


def test_weights_buy_performance_and_reliability() -> None:
    slow = quote(offer("slow", "0.10"))
    fast = quote(offer("fast", "0.12", performance=1.5))
    spot = quote(offer("spot", "0.09", option=PurchaseOption.SPOT), survival=0.8)
    lenient = RiskClass(name="batch", rank=2, quantile=0.5, max_shortfall=0.9)
    need = [certain(pool(risk=lenient), 2)]

    def chosen(weights: ScoreWeights) -> str:
        made = plan_of(need, [slow, fast, spot], PlanPolicy(weights=weights, shortfall_factor=0))
        return next(d.offer.id for d in made.decisions if d.verdict is Verdict.CHOSEN)

    assert chosen(ScoreWeights()) == "spot"
    assert chosen(ScoreWeights(reliability=1)) == "slow"
    assert chosen(ScoreWeights(reliability=1, performance=1)) == "fast"


def _reasons(made: Plan) -> dict[str, str]:
    return {decision.offer.id: decision.reason for decision in made.decisions}


def test_every_offer_gets_a_reason() -> None:
    """One of each kind of refusal."""
    aws, gcp = CELLS[0], CELLS[1]
    elsewhere = aws.model_copy(update={"region": "mars-1"})
    offers = [
        offer("good", "0.05"),
        offer("dearer", "0.30"),
        offer("unquoted", "0.01"),
        offer("expired", "0.02"),
        offer("tiny", "0.01", vcpus=0.5),
        offer("slow", "0.01", performance=0.3),
        offer("sold-out", "0.01", available=0),
        offer("unknown-cell", "0.01", cell=elsewhere),
        offer("region", "0.01", cell=gcp),
        offer("family", "0.01", instance_type="x9.large"),
        offer("rejected", "0.01"),
        offer("euro", "0.01").model_copy(update={"price": Money(amount=Decimal("0.01"), currency="EUR")}),
    ]
    by_id = {found.id: found for found in offers}
    lapsed = quote(by_id[OfferId("expired")]).model_copy(update={"expires_at": NOW})
    policy = PlanPolicy(regions=("us-east-1", "mars-1"), instance_families=("m7i",))
    fast = SMALL.model_copy(update={"min_performance": 0.5})
    made = plan(
        policy,
        [certain(pool(shard_type=fast), 2)],
        Inventory(),
        [quote(by_id[OfferId("good")]), quote(by_id[OfferId("dearer")]), lapsed],
        offers,
        [OfferRejection(offer=OfferId("rejected"), provider="aws", reason="price is 400 days old")],
        None,
        cells=CELLS,
        now=NOW,
        seed=1,
    )
    reasons = _reasons(made)
    kinds = {name: reason.split(":")[0] for name, reason in reasons.items()}
    assert kinds == {
        "good": "1 unit(s) at 0.05 USD/h by fixed-price",
        "dearer": "dearer",
        "unquoted": "no quote",
        "expired": "no quote",
        "tiny": "too small",
        "slow": "performance",
        "sold-out": "capacity",
        "unknown-cell": "policy",
        "region": "policy",
        "family": "policy",
        "rejected": "price is 400 days old",
        "euro": "policy",
    }
    assert made.rejections[0].reason == "price is 400 days old"
    assert reasons["dearer"] == "dearer: 0.15 per shard-hour against 0.025"


def test_no_more_is_bought_than_is_believed_to_be_there_and_the_reason_says_so() -> None:
    belief = DepthBelief(depth=1, advertised=8, told="denied 2 of 3 at 10:40")
    cheap = offer("cheap", "0.05", available=1).model_copy(update={"belief": belief})
    dear = offer("dear", "0.09", cell=CELLS[1]).model_copy(update={"belief": belief})
    made = plan_of([certain(pool(), 4)], [quote(cheap), quote(dear)])
    assert {row.offer.id: row.units for row in made.decisions} == {"cheap": 1, "dear": 1}
    told = "denied 2 of 3 at 10:40; believed depth 1"
    assert _reasons(made)["cheap"] == f"1 unit(s) at 0.05 USD/h by fixed-price; {told}"
    less = plan_of([certain(pool(), 2)], [quote(cheap), quote(dear)])
    assert _reasons(less)["dear"] == f"dearer: 0.045 per shard-hour against 0.025; {told}"


def test_what_was_seen_of_reclaims_is_part_of_the_risk() -> None:
    own = OwnHistory(reclaims=2, node_hours=310.0)
    shaky = offer("shaky", "0.01", option=PurchaseOption.SPOT)
    shaky = shaky.model_copy(update={"reliability": shaky.reliability.model_copy(update={"own": own})})
    need = [certain(pool(risk=CRITICAL), 2)]
    made = plan_of(need, [quote(shaky, survival=0.05, quantity=1), quote(offer("sure", "0.05", cell=CELLS[1]))])
    assert _reasons(made)["shaky"].startswith("risk: ")
    assert "(2 taken back in 310 node-hours)" in _reasons(made)["shaky"]


def test_limits_are_named_as_reasons() -> None:
    made = plan_of(demo_targets(), demo_market(), SPREAD)
    kinds = {reason.split(":")[0] for reason in _reasons(made).values()}
    assert kinds >= {"spot share", "dearer"}
    tight = PlanPolicy(max_provider_share=0.5, max_spot_share=0.0)
    cheap = [quote(offer("cheap", "0.01")), quote(offer("other", "0.09", cell=CELLS[1]))]
    assert _reasons(plan_of([certain(pool(), 4)], cheap, tight))["cheap"].startswith("1 unit")
    more = [*cheap, quote(offer("cheap-too", "0.011", instance_type="m7i.xlarge"))]
    assert _reasons(plan_of([certain(pool(), 4)], more, tight))["cheap-too"].startswith("concentration: aws")


def test_no_offer_fits_names_the_nearest_miss() -> None:
    need = [certain(pool(shard_type=MEMORY), 2)]
    with pytest.raises(NoOfferFits, match=r"pool web: 2 of 2 .* nearest miss: m7i.large at aws .* memory_gib 4 of 6"):
        plan_of(need, [quote(offer("o", "0.1", memory=4))])
    with pytest.raises(NoOfferFits, match="no offers were seen"):
        plan_of(need, [])
    with pytest.raises(NoOfferFits, match="none has a valid quote"):
        plan_of(need, [], offers=[offer("o", "0.1")])
    with pytest.raises(NoOfferFits, match="aws at most 1 shards in all"):
        plan_of([certain(pool(), 4)], [quote(offer("o", "0.1"))], PlanPolicy(max_provider_share=0.34))


@pytest.mark.parametrize("time_limit", [0.0, 5.0])
def test_budget_says_by_how_much(time_limit: float) -> None:
    market = [quote(offer("o", "0.10"))]
    policy = PlanPolicy(hourly_budget=usd("0.15"), time_limit_seconds=time_limit)
    with pytest.raises(BudgetExceeded, match=r"costs 0.200000 USD/h, 0.050000 USD/h over the budget"):
        plan_of([certain(pool(), 4)], market, policy)
    met = policy.model_copy(update={"hourly_budget": usd("0.20")})
    assert plan_of([certain(pool(), 4)], market, met).expected_hourly_cost == usd("0.20")
    with pytest.raises(NoOfferFits):
        plan_of([certain(pool(), 400)], market, policy)


def test_broken_inputs_are_named() -> None:
    good = certain(pool(), 2)
    with pytest.raises(BadUsageData, match="demand paths"):
        plan_of([good.model_copy(update={"demand_paths": ()})], demo_market())
    with pytest.raises(BadUsageData, match="demand paths"):
        plan_of([good.model_copy(update={"demand_paths": ((1,), (1, 2))})], demo_market())
    with pytest.raises(BadUsageData, match="negative"):
        plan_of([good.model_copy(update={"demand_paths": ((-1,),)})], demo_market())
    with pytest.raises(BadUsageData, match="same pool"):
        plan_of([good, good], demo_market())
    stray = inventory_of(plan_of([good], demo_market()))
    with pytest.raises(ConfigurationError, match="no configured provider serves"):
        plan(PlanPolicy(), [good], stray, (), (), (), None, cells=(), now=NOW, seed=1)
    with pytest.raises(ValueError, match="hourly_budget is in USD"):
        PlanPolicy(currency="EUR", hourly_budget=usd(1))


def test_a_quote_above_its_own_ceiling_is_never_bought() -> None:
    bad: Quote = quote(offer("o", "0.1")).model_copy(update={"price_ceiling": usd("0.05")})
    with pytest.raises(NoOfferFits):
        plan_of([certain(pool(), 1)], [bad])


def test_commitments_are_kept_while_they_run() -> None:
    committed = quote(offer("year", "0.20", option=PurchaseOption.COMMITMENT))
    committed = committed.model_copy(
        update={"term": committed.term.model_copy(update={"end": NOW + timedelta(days=300)})}
    )
    first = plan_of([certain(pool(), 2)], [committed])
    cheap = quote(offer("cheap", "0.02", cell=CELLS[3]))
    second = plan_of([certain(pool(), 2)], [cheap], inventory=inventory_of(first), parent=first)
    assert second.is_noop, "leaving it saves nothing: it is paid for anyway"
    ended = NOW + timedelta(days=301)
    cheap = cheap.model_copy(update={"expires_at": ended + timedelta(hours=1)})
    third = plan_of([certain(pool(), 2)], [cheap], inventory=inventory_of(first), parent=first, now=ended)
    assert third.leaving


def test_placement_is_kept() -> None:
    only = Placement(providers=("gcp", "harbor"))
    made = plan_of([certain(pool(placement=only), 4)], demo_market())
    assert set(_shards_by_provider(made)) <= {"gcp", "harbor"}


def test_a_rare_loss_is_judged_as_rare_even_on_one_demand_path() -> None:
    """Of one scenario alone, it would be never, or always."""
    lasting = RiskClass(name="lasting", rank=0, quantile=0.9, max_shortfall=1.0)
    spot = quote(offer("spot", "0.01", option=PurchaseOption.SPOT), survival=0.98)
    need = certain(pool("web", SMALL, lasting), 1)
    outcomes = [plan_of([need], [spot], PlanPolicy(scenarios=1), seed=seed).pools[0] for seed in range(3)]
    hours = need.step / timedelta(hours=1)
    assert [o.shortfall_probability for o in outcomes] == pytest.approx([1 - 0.98 ** (hours / 24)] * 3, abs=3e-4)


def test_what_a_resized_shard_has_beyond_its_type_is_room_that_nobody_else_gets() -> None:
    dear = quote(offer("dear", "0.20", cell=CELLS[0]))
    first = plan_of([certain(pool(), 1)], [dear])
    (item,) = inventory_of(first).nodes
    free = item.node.resources
    more = Resources(vcpus=free.vcpus - pool().shard_type.resources.vcpus, memory_gib=0)

    def bought(grown: Resources) -> int:
        inventory = Inventory(nodes=(item.model_copy(update={"grown": grown}),))
        second = plan_of([certain(pool(), 2)], [dear], inventory=inventory, parent=first)
        return sum(node.quote is not None for cell in second.cells for node in cell.nodes)

    assert bought(Resources(vcpus=0, memory_gib=0)) == 0
    assert bought(more) == 1


def test_a_node_whose_shard_outgrew_its_type_is_kept_where_it_would_be_left_for_a_cheaper_one() -> None:
    dear = quote(offer("dear", "0.20", cell=CELLS[0]))
    first = plan_of([certain(pool(), 2)], [dear])
    (item,) = inventory_of(first).nodes
    cheap = quote(offer("cheap", "0.01", cell=CELLS[3]))
    for outgrown, leaving in ((False, (item.node.id,)), (True, ())):
        inventory = Inventory(nodes=(item.model_copy(update={"outgrown": outgrown}),))
        second = plan_of([certain(pool(), 2)], [dear, cheap], inventory=inventory, parent=first)
        assert second.leaving == leaving
