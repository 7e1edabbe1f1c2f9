"""How fast a market of 100,000 real offers is taken in and ranked, and whether the cheapest fitting purchase is found.

    python -m benchmarks.offer_market --data ../shared/data

Loading is from the Parquet file to checked offers; ranking is for one need, without loading again. The purchase is
planned by ``plan(...)`` itself, over every offer that the file has of the named providers.
"""

import argparse
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TypeVar

import pyarrow.parquet as parquet

from engine.collection import collection_paused
from engine.market.base import Need
from engine.market.discovery import MarketLimits, fault_of
from engine.market.scoring import ScoreWeights, rank
from engine.model.capacity import CapacityTarget, Pool, Resources, RiskClass, ShardType, TargetStep
from engine.model.ids import OfferId, PoolId, QuoteId
from engine.model.market import Offer, PurchaseOption, Quote, Reliability
from engine.model.money import Money
from engine.model.placement import Cell
from engine.model.value import Interval
from engine.planner.inventory import Inventory
from engine.planner.planner import plan
from engine.planner.policy import PlanPolicy

T = TypeVar("T")
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
SLICE = Resources(vcpus=8, memory_gib=32)
_ANY = RiskClass(name="any", rank=0, quantile=0.5, max_shortfall=1.0)
_BAR = 100_000
_DESCRIPTION = ("provider", "region", "zone", "instance_type", "vcpus", "memory_gib")
_OPTIONS = {
    PurchaseOption.ON_DEMAND: "price_on_demand_usd_h",
    PurchaseOption.SPOT: "price_spot_usd_h",
}


@collection_paused()
def load(data: Path, most: int | None = None) -> list[Offer]:
    """Every priced row as one offer per purchase option, ``most`` of them; a price counts as stated now (the file
    tells it by day).

    Every value is checked by its class; what many offers have in common is checked once and shared.
    """
    path = data / "offers" / "offers.parquet"
    columns = parquet.ParquetFile(path).read(columns=[*_DESCRIPTION, *_OPTIONS.values()]).to_pydict()
    sizes: dict[tuple[float, float], Resources] = {}
    amounts: dict[float, Money] = {}
    offers = []
    rows = zip(*(columns[name] for name in _DESCRIPTION), strict=True)
    for row, (provider, region, zone, kind, vcpus, memory) in enumerate(rows):
        if most is not None and len(offers) >= most:
            break
        if not kind or not vcpus or not memory:
            continue
        size = sizes.get((vcpus, memory))
        if size is None:
            size = sizes[vcpus, memory] = Resources(vcpus=vcpus, memory_gib=memory)
        place = f"{provider}/{region}/{zone or region}/{kind}"
        reliability = Reliability(correlation_group=place)
        for option, column in _OPTIONS.items():
            price = columns[column][row]
            if price is None or price != price:
                continue
            money = amounts.get(price)
            if money is None:
                money = amounts[price] = Money(amount=Decimal(repr(price)))
            offers.append(
                Offer(
                    id=OfferId(f"{place}/{option.value}/{row}"),
                    provider=provider,
                    account="1",
                    region=region,
                    zone=zone or region,
                    instance_type=kind,
                    resources=size,
                    option=option,
                    price=money,
                    price_at=NOW,
                    reliability=reliability,
                )
            )
    return offers[:most]


def cheapest(offers: list[Offer]) -> tuple[Money, str]:
    """One shard of the slice, for sure, anywhere: the price of the plan and what it buys."""
    kind = ShardType(name="cpu.large", resources=SLICE)
    target = CapacityTarget(
        pool=Pool(id=PoolId("p"), shard_type=kind, risk_class=_ANY),
        step=timedelta(hours=1),
        steps=(TargetStep(start=NOW, shards_by_quantile=((0.5, 1),)),),
        demand_paths=((1,),),
        desired=1,
        current=0,
        forecaster="certain",
        made_at=NOW,
    )
    quotes = [
        Quote(
            id=QuoteId(f"q-{offer.id}"),
            offer=offer,
            quantity=10,
            unit_price=offer.price,
            price_ceiling=offer.price,
            term=Interval(start=NOW, end=NOW + timedelta(hours=24)),
            expires_at=NOW + timedelta(minutes=10),
            strategy="fixed-price",
        )
        for offer in offers
    ]
    cells = {
        offer.cell: Cell(provider=offer.provider, kind=offer.provider, account=offer.account, region=offer.region)
        for offer in offers
    }
    made = plan(
        PlanPolicy(), [target], Inventory(), quotes, offers, (), None, cells=list(cells.values()), now=NOW, seed=1
    )
    bought = [planned for cell in made.cells for planned in cell.nodes]
    return made.expected_hourly_cost, ", ".join(f"{p.node.instance_type} {p.node.option} {p.node.cell}" for p in bought)


def believable(offers: list[Offer]) -> list[Offer]:
    limits = MarketLimits()
    return [offer for offer in offers if fault_of(offer, limits, NOW) is None]


def timed(what: str, act: Callable[[], T]) -> T:
    wall, cpu = time.perf_counter(), time.process_time()
    found = act()
    print(f"{what}: {time.perf_counter() - wall:.2f} s wall, {time.process_time() - cpu:.2f} s CPU", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--providers", nargs="+", default=["azure", "gcp"], help="of the cheapest purchase")
    given = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.2f}")
    term = Interval(start=NOW, end=NOW + timedelta(hours=24))
    need = Need(key="benchmark", max_units=10, term=term, slice=SLICE)
    timed(f"{_BAR} offers loaded", lambda: load(given.data, _BAR))
    timed(
        f"{_BAR} offers loaded, checked and ranked",
        lambda: rank(believable(load(given.data, _BAR)), need, ScoreWeights()),
    )
    offers = timed("offers of the whole file loaded", lambda: load(given.data))
    good = timed(f"{len(offers)} offers checked", lambda: believable(offers))
    ranked = timed(f"{len(good)} offers ranked", lambda: rank(good, need, ScoreWeights()))
    print(f"{len(ranked)} carry {SLICE.vcpus:g} vCPU, {SLICE.memory_gib:g} GiB")
    for options in ((PurchaseOption.ON_DEMAND,), tuple(_OPTIONS)):
        of = [offer for offer in good if offer.provider in given.providers and offer.option in options]
        price, bought = timed(f"cheapest of {len(of)} ({', '.join(options)}) planned", lambda of=of: cheapest(of))
        print(f"{price}/h: {bought}")
        least = min(o.price.amount for o in of if o.resources.holds(SLICE))
        print(f"{least} USD/h: the least price of any offer that carries one, by looking at each")


if __name__ == "__main__":
    main()
