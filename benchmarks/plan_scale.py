"""How long a plan takes, and how near the best it is, as markets and pools grow.

One thread, the whole pure ``plan(...)`` call: candidates, programme, solver, scenarios, explanations. The greedy plan
of the same run is the yardstick: its time for ours, its cost for what the solver finds.

    python -m benchmarks.plan_scale [--size 100x2000 …] [--limit SECONDS] [--output-file OUT.json]
"""

import argparse
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from engine.model.capacity import CapacityTarget, Placement, Resources, RiskClass, ShardType
from engine.model.plan import Plan
from engine.planner.inventory import Inventory
from engine.planner.planner import plan
from engine.planner.policy import PlanPolicy
from tests.unit.engine.planner.cases import CELLS, CRITICAL, MEMORY, NOW, SMALL, STANDARD, pool, random_market, target

SIZES = ("2x14", "6x60", "20x300", "100x2000", "1000x100000")
SCENARIOS = 64
_BATCH = RiskClass(name="batch", rank=2, quantile=0.8, max_shortfall=0.1)
_TYPES = (
    SMALL,
    MEMORY,
    ShardType(name="cpu.large", resources=Resources(vcpus=4, memory_gib=8), min_performance=0.9),
    ShardType(name="disk.small", resources=Resources(vcpus=1, memory_gib=4, storage_iops=1000)),
    ShardType(name="net.small", resources=Resources(vcpus=2, memory_gib=4, network_mbps=250)),
)


def needs(count: int, seed: int) -> list[CapacityTarget]:
    """Pools of five shapes, three risk classes and several placements; demand from 1 to some 30 shards."""
    rng = np.random.default_rng(seed)
    made = []
    for index in range(count):
        risk = (STANDARD, CRITICAL, _BATCH)[int(rng.choice(3, p=[0.5, 0.25, 0.25]))]
        providers = (
            () if rng.random() < 0.7 else tuple(sorted({CELLS[int(i)].provider for i in rng.integers(5, size=3)}))
        )
        shape = _TYPES[int(rng.choice(5, p=[0.35, 0.2, 0.15, 0.15, 0.15]))]
        of = pool(f"p{index:04d}", shape, risk, Placement(providers=providers))
        mean = float(np.exp(rng.uniform(0.0, 3.4)))
        made.append(target(of, mean, paths=SCENARIOS, seed=seed + 1 + index))
    return made


@dataclass(frozen=True)
class Measured:
    pools: int
    offers: int
    wall_s: float
    cpu_s: float
    solver: str
    gap: float
    cost: float
    greedy_wall_s: float
    greedy_cpu_s: float
    greedy_cost: float
    risk_kept: float
    """Share of pools whose quantile is met on the joint scenarios."""


def measure(pools: int, offers: int, *, limit: float | None, gap: float, seed: int) -> Measured:
    targets = needs(pools, seed)
    quotes = random_market(np.random.default_rng(seed), offers)
    # As many units as the demand could want: a market too small for the need measures the error message.
    quotes = [q.model_copy(update={"quantity": q.quantity * max(1, pools * 10 // offers)}) for q in quotes]
    policy = PlanPolicy(max_provider_share=0.6, max_spot_share=0.6, scenarios=SCENARIOS, gap=gap)
    if limit is not None:
        policy = policy.model_copy(update={"time_limit_seconds": limit})

    def made(policy: PlanPolicy) -> tuple[Plan, float, float]:
        wall, cpu = time.perf_counter(), time.process_time()
        found = plan(
            policy, targets, Inventory(), quotes, [q.offer for q in quotes], (), None, cells=CELLS, now=NOW, seed=7
        )
        return found, time.perf_counter() - wall, time.process_time() - cpu

    greedy, greedy_wall, greedy_cpu = made(policy.model_copy(update={"time_limit_seconds": 0.0}))
    ours, wall, cpu = made(policy)
    quantile = {t.pool.id: t.pool.risk_class.quantile for t in targets}
    kept = [outcome.quantile_met >= quantile[outcome.pool] - 2e-3 for outcome in ours.pools]
    return Measured(
        pools=pools,
        offers=offers,
        wall_s=wall,
        cpu_s=cpu,
        solver=ours.solver,
        gap=ours.gap,
        cost=float(ours.expected_hourly_cost.amount),
        greedy_wall_s=greedy_wall,
        greedy_cpu_s=greedy_cpu,
        greedy_cost=float(greedy.expected_hourly_cost.amount),
        risk_kept=sum(kept) / len(kept),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", nargs="+", default=SIZES, help="pools x offers, e.g. 100x2000")
    parser.add_argument("--limit", type=float, help="the policy's time limit in seconds; left out: its default")
    parser.add_argument("--gap", type=float, default=0.01, help="relative gap at which the solver may stop")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output-file", type=Path)
    given = parser.parse_args()
    rows = []
    print(f"load {os.getloadavg()[0]:.2f}")
    for size in given.size:
        pools, offers = (int(part) for part in size.split("x"))
        row = measure(pools, offers, limit=given.limit, gap=given.gap, seed=given.seed)
        rows.append(row)
        print(
            f"{pools:>5} pools {offers:>7} offers: {row.wall_s:7.2f} s wall {row.cpu_s:7.2f} s CPU, {row.solver}, "
            f"gap {row.gap:.3%}, {row.cost:.4f}/h; greedy {row.greedy_wall_s:.2f} s {row.greedy_cost:.4f}/h; "
            f"risk kept in {row.risk_kept:.0%} of pools; load {os.getloadavg()[0]:.2f}",
            flush=True,
        )
    if given.output_file is not None:
        given.output_file.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
