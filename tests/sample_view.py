"""Facts for tests of what shows them: five providers, a plan, two moves, bills; and a view with nothing yet."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from math import cos, pi

from engine.api.view import ALL_SHARDS, BillView, ShardView, replicas_of, shard_views
from engine.billing.reconciliation import reconcile
from engine.billing.report import cost_report
from engine.billing.sums import NODE_TAG, sums_of
from engine.composition.membership import standings
from engine.errors import UnknownName
from engine.model.billing import Charge, ChargeCategory, ChargeSum, Invoice
from engine.model.capacity import CapacityTarget, Pool, Resources, RiskClass, ShardType, TargetStep
from engine.model.composite import HealthState, ShardHealth
from engine.model.ids import CellId, MoveId, NodeId, OfferId, PlanId, PoolId, QuoteId, ShardId
from engine.model.market import Offer, PurchaseOption, Quote, Reliability
from engine.model.money import Money, usd
from engine.model.move import MovePhase, MoveProgress, MoveReport, MoveRequest, MoveUnderWay
from engine.model.placement import Binding, Cell, ComponentName, Node, NodeState, Shard, ShardQuery, ShardState
from engine.model.plan import (
    CellPlan,
    MoveCause,
    OfferDecision,
    OfferRejection,
    Plan,
    PlannedNode,
    PoolOutcome,
    ShardSlot,
    Verdict,
)
from engine.model.value import Interval
from engine.namespace.names import NameQuery
from engine.planner.move_gate import move_gate

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
MONTH = Interval(start=datetime(2026, 11, 1, tzinfo=UTC), end=datetime(2026, 12, 1, tzinfo=UTC))
SMALL = Resources(vcpus=1, memory_gib=2, storage_iops=500, network_mbps=100)
STANDARD = RiskClass(name="standard", rank=1, quantile=0.9, max_shortfall=0.02)
CRITICAL = RiskClass(name="critical", rank=0, quantile=0.99, max_shortfall=0.001)
WEB = Pool(
    id=PoolId("cpu.small/anywhere/standard"),
    shard_type=ShardType(name="cpu.small", resources=SMALL),
    risk_class=STANDARD,
)
STORE = Pool(
    id=PoolId("mem.large/eu/critical"),
    shard_type=ShardType(name="mem.large", resources=Resources(vcpus=2, memory_gib=16)),
    risk_class=CRITICAL,
)
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)

PLACES = (
    # provider, kind, account, region, zone, instance type, option, price
    ("aws", "aws", "123456789012", "us-east-1", "us-east-1a", "m7i.xlarge", PurchaseOption.SPOT, "0.0712"),
    ("gcp", "gcp", "shardwright-sandbox", "europe-west1", "europe-west1-b", "e2-standard-4",
     PurchaseOption.ON_DEMAND, "0.1474"),
    ("azure", "azure", "00000000-0000-4000-8000-000000000001", "westeurope", "westeurope-1", "Standard_D4s_v5",
     PurchaseOption.SPOT, "0.0648"),
    ("harbor", "network", "shardwright", "harbor-eu", "harbor-eu-1", "hb.4", PurchaseOption.ON_DEMAND, "0.0960"),
    ("agora", "network", "shardwright", "agora-us", "agora-us-1", "ag-metal-4", PurchaseOption.AUCTION, "0.0585"),
)  # fmt: skip


class SampleView:
    """Everything there is to show, made of real values by the real functions."""

    name = "sample fleet"

    def __init__(self, *, reason: str = "") -> None:
        self._nodes = tuple(_node(number) for number in range(len(PLACES)))
        self._plan = _plan(self._nodes, reason)

    def nodes(self) -> Sequence[Node]:
        return self._nodes

    def shards(self, query: ShardQuery = ALL_SHARDS) -> Sequence[ShardView]:
        shards = tuple(_shard(number, node) for number, node in enumerate(self._nodes))
        bindings = tuple(_binding(number, shard) for number, shard in enumerate(shards[:4]))
        ill = ShardHealth(
            shard=shards[1].id, node=shards[1].node, epoch=shards[1].epoch, state=HealthState.UNHEALTHY,
            reason="port 7000 is closed", since=NOW, reported_at=NOW,
        )  # fmt: skip
        found = tuple(shard for shard in shards if query.state in (None, shard.state) and query.admits(shard))
        return shard_views(found, self._nodes, bindings, standings(bindings, {ill.shard: ill}, {}, now=NOW))

    def plan(self) -> Plan | None:
        return self._plan

    def targets(self) -> Sequence[CapacityTarget]:
        return (target(WEB, current=3, scale=4.0), target(STORE, current=1, scale=1.2))

    def moves(self) -> Sequence[MoveReport]:
        return (reclaim_move(), cost_move())

    def moves_ended(self) -> int:
        return 2 + 1000

    def moves_under_way(self) -> Sequence[MoveUnderWay]:
        progress = MoveProgress(
            request=reclaim_move().request.model_copy(update={"id": MoveId("move-s-0004-order-1")}),
            phase=MovePhase.PRECOPY, at=NOW, bytes_left=48 << 20, bytes_per_second=12_000_000.0,
        )  # fmt: skip
        return (MoveUnderWay(progress=progress, since=NOW, cancelled=True),)

    def bills(self) -> BillView:
        sums = tuple(one for number, node in enumerate(self._nodes) for one in _sums(number, node))
        shares = {node.id: (("shop/web", 2), ("shop/db", 1)) for node in self._nodes[:3]}
        return BillView(report=cost_report(sums, shares), reconciliation=reconcile(_invoices(), sums))

    def charges(self) -> Iterable[Charge]:
        for number, node in enumerate(self._nodes):
            yield from _charges(number, node)

    def resolve(self, component: ComponentName) -> ShardView:
        for row in self.shards():
            if row.component == component:
                return row
        raise UnknownName(f"{component} is not bound to a shard", why="the shard map has no binding of that name")

    def replicas(self, query: NameQuery) -> Sequence[ShardView]:
        return replicas_of(self.shards(), query)


class EmptyView:
    """Before the first round."""

    name = "new fleet"

    def nodes(self) -> Sequence[Node]:
        return ()

    def shards(self, query: ShardQuery = ALL_SHARDS) -> Sequence[ShardView]:
        return ()

    def plan(self) -> Plan | None:
        return None

    def targets(self) -> Sequence[CapacityTarget]:
        return ()

    def moves(self) -> Sequence[MoveReport]:
        return ()

    def moves_ended(self) -> int:
        return 0

    def moves_under_way(self) -> Sequence[MoveUnderWay]:
        return ()

    def bills(self) -> BillView:
        return BillView(report=cost_report((), {}), reconciliation=reconcile((), ()))

    def charges(self) -> Iterable[Charge]:
        return ()

    def resolve(self, component: ComponentName) -> ShardView:
        raise UnknownName(f"{component} is not bound to a shard")

    def replicas(self, query: NameQuery) -> Sequence[ShardView]:
        raise UnknownName(f"{query} is not bound to a shard")


def target(pool: Pool, *, current: int, scale: float) -> CapacityTarget:
    """A day in half hours with its peak after seven hours; 200 paths around the curve."""
    curve = [scale * (1.4 - cos(2 * pi * (step + 9) / 48)) for step in range(48)]
    spread = [0.6 + 0.9 * number / 199 for number in range(200)]
    paths = tuple(tuple(round(level * factor) for level in curve) for factor in spread)
    steps = tuple(
        TargetStep(
            start=NOW + step * timedelta(minutes=30),
            shards_by_quantile=tuple((q, sorted(path[step] for path in paths)[int(q * 199)]) for q in QUANTILES),
        )
        for step in range(48)
    )
    return CapacityTarget(
        pool=pool,
        step=timedelta(minutes=30),
        steps=steps,
        demand_paths=paths,
        desired=sorted(max(path) for path in paths)[int(pool.risk_class.quantile * 199)],
        current=current,
        forecaster="rnn",
        made_at=NOW,
    )


def reclaim_move() -> MoveReport:
    return MoveReport(
        request=MoveRequest(
            id=MoveId("move-1"),
            shard=ShardId("s-0001"),
            source=NodeId("sw-aws-0"),
            destination=NodeId("sw-azure-2"),
            cause=MoveCause.RECLAIM,
            deadline=NOW + timedelta(minutes=2),
        ),
        phase=MovePhase.CLEANED,
        strategy="pre-copy",
        epoch_before=1,
        epoch_after=2,
        started_at=NOW + timedelta(minutes=3),
        finished_at=NOW + timedelta(minutes=3, seconds=9),
        downtime_seconds=0.084,
        memory_bytes=134_217_728,
        disk_bytes=67_108_864,
    )


def cost_move() -> MoveReport:
    gate = move_gate(
        source_price=usd("0.0491"),
        target_price=usd("0.0195"),
        expected_stay_hours=24,
        egress_gib=0.1875,
        egress_price_per_gib=usd("0.09"),
        double_pay_hours=0.1,
        downtime_cost=usd("0.0001"),
        risk_at_target=usd("0.0125"),
        lost_commitment=usd("0"),
    )
    return MoveReport(
        request=MoveRequest(
            id=MoveId("move-2"),
            shard=ShardId("s-0002"),
            source=NodeId("sw-gcp-1"),
            destination=NodeId("sw-agora-4"),
            cause=MoveCause.COST,
            gate=gate,
        ),
        phase=MovePhase.COMMITTED,
        strategy="post-copy",
        epoch_before=1,
        epoch_after=2,
        started_at=NOW + timedelta(minutes=8),
        finished_at=NOW + timedelta(minutes=8, seconds=12),
        downtime_seconds=0.051,
        memory_bytes=134_217_728,
        disk_bytes=67_108_864,
    )


def _node(number: int) -> Node:
    provider, _, account, region, zone, instance_type, option, price = PLACES[number]
    return Node(
        id=NodeId(f"sw-{provider}-{number}"),
        cell=CellId(f"{provider}/{account}/{region}"),
        zone=zone,
        instance_type=instance_type,
        option=option,
        hourly_price=usd(price),
        resources=Resources(vcpus=4, memory_gib=16, storage_iops=3000, network_mbps=1000),
        state=NodeState.RECLAIMING if number == 0 else NodeState.JOINED,
        instance_id=f"i-{number:017x}",
        agent_url=f"https://192.0.2.{number + 1}:7443",
        underlay_address=f"192.0.2.{number + 1}",
    )


def _shard(number: int, node: Node) -> Shard:
    return Shard(
        id=ShardId(f"s-{number + 1:04d}"),
        shard_type="cpu.small",
        pool=WEB.id,
        node=node.id,
        state=ShardState.BOUND if number < 4 else ShardState.READY,
        epoch=2 if number < 2 else 1,
        nominal=SMALL,
        measured=SMALL,
        address=f"10.86.0.{number + 10}",
        mac=f"02:5a:00:00:00:{number:02x}",
    )


def _binding(number: int, shard: Shard) -> Binding:
    component = "web" if number < 3 else "db"
    name = ComponentName(namespace="shop", workload="shop", component=component, index=number % 3)
    return Binding(component=name, shard=shard.id, bound_at=NOW)


def _plan(nodes: Sequence[Node], reason: str) -> Plan:
    decisions = []
    for number, place in enumerate(PLACES):
        for dearer in (0, 1):
            offer = _offer(number, dearer)
            chosen = not dearer
            each = offer.price * Decimal("0.25")
            why_not = reason or f"dearer: {each} per shard-hour against 0.0369"
            decisions.append(
                OfferDecision(
                    offer=offer,
                    verdict=Verdict.CHOSEN if chosen else Verdict.WHY_NOT,
                    units=1 - dearer,
                    reason=f"cheapest {place[6].replace('_', ' ')} within the pool's risk" if chosen else why_not,
                    price_per_shard_hour=each,
                )
            )
    return Plan(
        id=PlanId("plan-7f3a"),
        parent=PlanId("plan-51c0"),
        generation=2,
        made_at=NOW,
        cells=tuple(_cell_plan(number, node) for number, node in enumerate(nodes)),
        leaving=(NodeId("sw-aws-old"),),
        decisions=tuple(reversed(decisions)),
        rejections=(
            OfferRejection(offer=OfferId("agora/ag-1"), provider="agora", reason="a price of 0.0000001 USD"),
        ),
        pools=(
            PoolOutcome(pool=WEB.id, desired=9, planned=9, quantile_met=0.93, shortfall_probability=0.031,
                        expected_shortfall_share=0.0042),
            PoolOutcome(pool=STORE.id, desired=4, planned=3, quantile_met=0.9, shortfall_probability=0.09,
                        expected_shortfall_share=0.0125),
        ),
        expected_hourly_cost=Money.total(node.hourly_price for node in nodes),
        cost_quantiles=((0.5, usd("10.4721")), (0.95, usd("11.9034"))),
        solver="HiGHS 1.11",
        gap=0.0008,
        solve_seconds=0.412,
    )  # fmt: skip


def _offer(number: int, dearer: int) -> Offer:
    provider, _, account, region, zone, instance_type, option, price = PLACES[number]
    return Offer(
        id=OfferId(f"{provider}/{zone}/{instance_type}/{dearer}"),
        provider=provider,
        account=account,
        region=region,
        zone=zone,
        instance_type=instance_type.replace("4", "8") if dearer else instance_type,
        resources=Resources(vcpus=4, memory_gib=16),
        option=option,
        price=usd(price) * (1 + dearer),
        price_at=NOW,
        reliability=Reliability(correlation_group=f"{provider}/{region}"),
    )


def _cell_plan(number: int, node: Node) -> CellPlan:
    provider, kind, account, region, *_ = PLACES[number]
    offer = _offer(number, 0)
    quote = Quote(
        id=QuoteId(f"q-{number}"),
        offer=offer,
        quantity=1,
        unit_price=offer.price,
        price_ceiling=offer.price * 2,
        term=Interval(start=NOW, end=NOW + timedelta(hours=24)),
        expires_at=NOW + timedelta(minutes=5),
        strategy={"spot": "spot", "auction": "auction"}.get(offer.option, "fixed_price"),
    )
    planned = PlannedNode(
        node=node,
        slots=(ShardSlot(pool=WEB.id, shard_type="cpu.small", count=2),),
        quote=None if number == 0 else quote,
        token=f"shard:{node.cell}:{node.id}:2",
    )
    return CellPlan(
        cell=Cell(provider=provider, kind=kind, account=account, region=region), generation=2, nodes=(planned,)
    )


def _charges(number: int, node: Node) -> Iterable[Charge]:
    """Three hours of the node, and for the first issuer the cent that rounding leaves."""
    provider = PLACES[number][0]
    cost = node.hourly_price.amount * 3
    costs = [(f"{provider}/1", cost, ChargeCategory.USAGE, ((NODE_TAG, str(node.id)),))]
    costs.append((f"{provider}/2", round(cost, 2) - cost, ChargeCategory.ADJUSTMENT, ()))
    for charge_id, amount, category, tags in costs:
        yield Charge(
            charge_id=charge_id,
            billed_cost=amount,
            effective_cost=amount,
            list_cost=amount * 2 if tags else amount,
            contracted_cost=amount,
            billing_currency="USD",
            billing_account_id="acc",
            billing_period=MONTH,
            charge_period=Interval(start=NOW, end=NOW + timedelta(hours=3)),
            charge_category=category,
            charge_description=f'{node.instance_type}, "{node.option}", per hour' if tags else "Rounding",
            provider_name=provider,
            publisher_name=provider,
            invoice_issuer_name=f"{provider} issuer",
            invoice_id=f"INV-{provider.upper()}-202611",
            service_name="Compute",
            tags=tags,
        )


def _sums(number: int, node: Node) -> Iterable[ChargeSum]:
    return sums_of(PLACES[number][0], _charges(number, node))


def _invoices() -> Iterable[tuple[str, Invoice]]:
    """One per provider; the last asks for two cents more than its rows say."""
    for number, place in enumerate(PLACES):
        total = round(Decimal(place[7]) * 3, 2) + (Decimal("0.02") if number == len(PLACES) - 1 else 0)
        yield (
            place[0],
            Invoice(
                issuer=f"{place[0]} issuer",
                invoice_id=f"INV-{place[0].upper()}-202611",
                billing_period=MONTH,
                total=usd(total),
            ),
        )
