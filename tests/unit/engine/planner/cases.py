"""Small markets and needs from seeds, for the planner's tests."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import numpy as np

from engine.model.capacity import CapacityTarget, Placement, Pool, Resources, RiskClass, ShardType, TargetStep
from engine.model.ids import OfferId, PoolId, QuoteId
from engine.model.market import Offer, PurchaseOption, Quote, Reliability
from engine.model.money import usd
from engine.model.placement import Cell
from engine.model.value import Interval
from engine.planner.inventory import Inventory, InventoryNode
from engine.planner.planner import plan
from engine.planner.policy import PlanPolicy

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
STEP = timedelta(hours=1)

SMALL = ShardType(name="cpu.small", resources=Resources(vcpus=1, memory_gib=1))
MEMORY = ShardType(name="memory.small", resources=Resources(vcpus=1, memory_gib=6), min_performance=0.8)
STANDARD = RiskClass(name="standard", rank=1, quantile=0.9, max_shortfall=0.05)
CRITICAL = RiskClass(name="critical", rank=0, quantile=0.99, max_shortfall=0.001)

CELLS = (
    Cell(provider="aws", kind="aws", account="123456789012", region="us-east-1"),
    Cell(provider="gcp", kind="gcp", account="shardwright-sandbox", region="us-central1"),
    Cell(provider="azure", kind="azure", account="00000000-0000-4000-8000-000000000001", region="eastus"),
    Cell(provider="harbor", kind="network", account="shardwright", region="harbor-eu"),
    Cell(provider="agora", kind="network", account="shardwright", region="agora-us"),
)


def pool(
    name: str = "web",
    shard_type: ShardType = SMALL,
    risk: RiskClass = STANDARD,
    placement: Placement | None = None,
) -> Pool:
    return Pool(id=PoolId(name), shard_type=shard_type, risk_class=risk, placement=placement or Placement())


def target(of: Pool, mean: float = 6.0, *, paths: int = 100, steps: int = 4, seed: int = 1) -> CapacityTarget:
    """Poisson demand; ``desired`` is the risk class's quantile of the paths' maxima."""
    demand = np.random.default_rng(seed).poisson(mean, (paths, steps))
    return target_of_paths(of, demand.tolist())


def target_of_paths(of: Pool, demand: Sequence[Sequence[int]]) -> CapacityTarget:
    array = np.array(demand)
    desired = int(np.quantile(array.max(axis=1), of.risk_class.quantile, method="inverted_cdf"))
    return CapacityTarget(
        pool=of,
        step=STEP,
        steps=tuple(
            TargetStep(start=NOW + i * STEP, shards_by_quantile=((0.5, int(np.median(array[:, i]))),))
            for i in range(array.shape[1])
        ),
        demand_paths=tuple(tuple(int(v) for v in path) for path in demand),
        desired=desired,
        current=0,
        forecaster="seasonal-naive",
        made_at=NOW,
    )


def certain(of: Pool, shards: int) -> CapacityTarget:
    """Exactly so many shards, for sure."""
    return target_of_paths(of, [[shards]])


def offer(
    name: str,
    price: str,
    *,
    cell: Cell = CELLS[0],
    vcpus: float = 2,
    memory: float = 8,
    option: PurchaseOption = PurchaseOption.ON_DEMAND,
    performance: float = 1.0,
    instance_type: str = "m7i.large",
    available: int | None = None,
) -> Offer:
    return Offer(
        id=OfferId(name),
        provider=cell.provider,
        account=cell.account,
        region=cell.region,
        zone=f"{cell.region}-a",
        instance_type=instance_type,
        resources=Resources(vcpus=vcpus, memory_gib=memory, storage_iops=3000, network_mbps=1000),
        performance=performance,
        option=option,
        price=usd(price),
        price_at=NOW,
        available=available,
        reliability=Reliability(correlation_group=f"{cell.id}/{cell.region}-a/{instance_type}"),
    )


def quote(of: Offer, *, quantity: int = 10, survival: float = 1.0, price: str | None = None) -> Quote:
    unit = usd(price) if price is not None else of.price
    return Quote(
        id=QuoteId(f"q-{of.id}"),
        offer=of,
        quantity=quantity,
        unit_price=unit,
        price_ceiling=unit * Decimal(2),
        term=Interval(start=NOW, end=NOW + timedelta(hours=24)),
        expires_at=NOW + timedelta(minutes=10),
        strategy={"spot": "spot", "auction": "auction"}.get(of.option.value, "fixed-price"),
        survival=survival,
    )


def demo_market() -> list[Quote]:
    """Five providers; spot, fixed and auction at prices such as they are."""
    aws, gcp, azure, harbor, agora = CELLS
    spot, auction = PurchaseOption.SPOT, PurchaseOption.AUCTION
    return [
        quote(offer("aws-od", "0.1008", cell=aws)),
        quote(offer("aws-spot", "0.0371", cell=aws, option=spot), survival=0.997),
        quote(offer("gcp-od", "0.0670", cell=gcp, instance_type="e2-standard-2")),
        quote(offer("gcp-spot", "0.0201", cell=gcp, option=spot, instance_type="e2-standard-2"), survival=0.99),
        quote(offer("azure-od", "0.0960", cell=azure, instance_type="Standard_D2s_v5")),
        quote(offer("azure-spot", "0.0240", cell=azure, option=spot, instance_type="Standard_D2s_v5"), survival=0.98),
        quote(offer("harbor", "0.0500", cell=harbor, instance_type="h2")),
        quote(offer("agora", "0.0300", cell=agora, option=auction, instance_type="a2"), quantity=2),
    ]


def plan_of(
    targets: Sequence[CapacityTarget],
    quotes: Sequence[Quote],
    policy: PlanPolicy | None = None,
    *,
    inventory: Inventory | None = None,
    parent: "object | None" = None,
    offers: Sequence[Offer] = (),
    seed: int = 7,
    now: datetime = NOW,
):
    return plan(
        policy or PlanPolicy(),
        targets,
        inventory or Inventory(),
        quotes,
        [*(q.offer for q in quotes), *offers],
        (),
        parent,  # type: ignore[arg-type]
        cells=CELLS,
        now=now,
        seed=seed,
    )


def inventory_of(made) -> Inventory:
    """What runs once a plan is carried out."""
    return Inventory(
        nodes=tuple(InventoryNode(node=p.node, slots=p.slots, planned=p) for cell in made.cells for p in cell.nodes)
    )


def random_market(rng: np.random.Generator, count: int, *, providers: int = 5) -> list[Quote]:
    quotes = []
    for index in range(count):
        cell = CELLS[int(rng.integers(providers))]
        vcpus = int(rng.choice([2, 4, 8, 16, 32]))
        option = PurchaseOption.SPOT if rng.random() < 0.4 else PurchaseOption.ON_DEMAND
        per_cpu = rng.uniform(0.02, 0.06) * (0.3 if option is PurchaseOption.SPOT else 1.0)
        found = offer(
            f"o{index:05d}",
            f"{per_cpu * vcpus:.4f}",
            cell=cell,
            vcpus=vcpus,
            memory=vcpus * float(rng.choice([2, 4, 8])),
            option=option,
            performance=float(rng.uniform(0.6, 1.6)),
            instance_type=f"f{int(rng.integers(12))}.{vcpus}x",
        )
        survival = float(rng.uniform(0.9, 0.999)) if option is PurchaseOption.SPOT else 1.0
        quotes.append(quote(found, quantity=int(rng.integers(1, 40)), survival=survival))
    return quotes
