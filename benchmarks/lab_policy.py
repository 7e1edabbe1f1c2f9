"""What our policy costs on cases, beside the bound and the risk, and how long its answers take.

    .venv/bin/python -m benchmarks.lab_policy [--data ../shared/data] [--case FILE …] [--output json]

Without ``--case`` the game cases under ``--data`` are played. Regret in USD: ``sizing`` is capacity that nobody needed,
``market`` is buying, packing and moving. Times are of the policy alone, in this process.
"""

import argparse
import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from lab.bound import clairvoyant_bound
from lab.case import read_case
from lab.host import play
from lab.policies.registry import policy_of
from lab.regret import regret_of
from lab.timed_policy import TimedPolicy


@dataclass(frozen=True)
class Row:
    """Shortfalls are shares; decision times milliseconds."""

    case: str
    cost: float
    cost_to_bound: float
    sizing: float
    market: float
    shortfall: float
    shortfall_by_class: dict[str, float]
    keeps_risk: bool
    unanswered: int
    init_seconds: float
    decision_p50_ms: float
    decision_p95_ms: float


def measured(path: Path, name: str) -> Row:
    case = read_case(path)
    policy = TimedPolicy(policy_of(name))
    result = play(case, policy, name=name)
    bound = clairvoyant_bound(case)
    regret = regret_of(case, result, bound)
    p50, p95 = np.quantile(policy.answer_seconds, (0.5, 0.95)) * 1000
    return Row(
        case=case.id,
        cost=float(result.cost),
        cost_to_bound=float(result.cost / bound.cost),
        sizing=float(regret.sizing),
        market=float(regret.market),
        shortfall=result.shortfall_rate,
        shortfall_by_class=result.shortfall_by_class,
        keeps_risk=result.keeps_risk,
        unanswered=result.malformed + result.late,
        init_seconds=policy.init_seconds,
        decision_p50_ms=float(p50),
        decision_p95_ms=float(p95),
    )


def line(row: Row) -> str:
    classes = ", ".join(f"{name} {share:.2%}" for name, share in row.shortfall_by_class.items())
    kept = "kept" if row.keeps_risk else "BROKEN"
    times = f"{row.init_seconds:6.2f} {row.decision_p50_ms:6.1f} {row.decision_p95_ms:6.1f}"
    sums = f"{row.cost:10.2f} {row.cost_to_bound:7.4f} {row.sizing:9.2f} {row.market:9.2f}"
    return f"{row.case:20} {sums} {row.shortfall:6.2%} {kept:6} {times}  {classes}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--case", type=Path, nargs="+", default=[])
    parser.add_argument("--policy", default="shardwright")
    parser.add_argument("--output", choices=("table", "json"), default="table")
    chosen = parser.parse_args()
    paths = chosen.case or sorted((chosen.data / "game").glob("*.json.gz"))
    if not paths:
        raise SystemExit("no cases found; give their folder's parent with --data, or files with --case")
    head = "case                       cost  /bound    sizing    market  short risk   init s p50 ms p95 ms  by class"
    if chosen.output == "table":
        print(head, flush=True)
    rows = []
    for path in paths:
        rows.append(measured(path, chosen.policy))
        print(line(rows[-1]), file=sys.stderr if chosen.output == "json" else sys.stdout, flush=True)
    mean = float(np.exp(np.mean(np.log([row.cost_to_bound for row in rows]))))
    kept, load = sum(row.keeps_risk for row in rows), os.getloadavg()[0]
    if chosen.output == "json":
        print(json.dumps({"cases": [asdict(row) for row in rows], "geometric_mean": mean, "kept": kept, "load": load}))
    else:
        print(f"geometric mean {mean:.4f}; risk kept on {kept} of {len(rows)}; load at the end {load:.1f}")


if __name__ == "__main__":
    main()
