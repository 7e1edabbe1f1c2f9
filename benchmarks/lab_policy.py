"""What our policy costs on cases, beside the bound and the risk, and how long its answers take.

    .venv/bin/python -m benchmarks.lab_policy [--data ../shared/data] [--case FILE …] [--output json]

Without ``--case`` the game cases under ``--data`` are played. Regret in USD: ``sizing`` is capacity that nobody needed,
``market`` is buying, packing and moving. Times are of the policy alone, in this process.

Beside it stands quantile sizing on on-demand units: the baseline ``seasonal-quantile`` as hosted, whose levels are
learnt from the history, and at equal risk: its lowest level, one for all fleets, that keeps every limit in hindsight.
"""

import argparse
import json
import os
import sys
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from lab.bound import clairvoyant_bound
from lab.case import Case, read_case
from lab.host import play
from lab.policies.on_demand import OnDemandPolicy
from lab.policies.registry import policy_of
from lab.policies.sizing import QuantileOf, SeasonalNaive
from lab.regret import regret_of
from lab.tally import Result
from lab.timed_policy import TimedPolicy

LEVELS = 1000
SPOT_IS_RICH = "spot-rich"
"""In the name of a case that says so."""


@dataclass(frozen=True)
class Quantiles:
    """Quantile sizing on on-demand units, USD: as hosted, and at ``level``, the lowest that keeps the risk."""

    hosted: float
    fair: float
    level: float


@dataclass(frozen=True)
class Row:
    """Shortfalls are shares; decision times milliseconds. ``quantiles``: None where no level keeps the risk."""

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
    quantiles: Quantiles | None


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
        quantiles=quantiles_on_demand(case),
    )


def quantiles_on_demand(case: Case) -> Quantiles | None:
    level = bisect_left(range(LEVELS + 1), True, key=lambda level: at_level(case, level).keeps_risk)
    if level > LEVELS:
        return None
    hosted = play(case, policy_of("seasonal-quantile")).cost
    return Quantiles(float(hosted), float(at_level(case, level).cost), level / LEVELS)


def at_level(case: Case, level: int) -> Result:
    """What ``seasonal-quantile`` comes to when all fleets have that quantile; ``level``: of ``LEVELS``."""
    return play(case, OnDemandPolicy(QuantileOf(SeasonalNaive, level / LEVELS)))


def cheaper(rows: Sequence[Row]) -> str:
    """By how much than quantile sizing on on-demand units: geometric mean over these cases."""
    known = [(row.cost, row.quantiles) for row in rows if row.quantiles]
    if not known:
        return "no case where quantile sizing keeps the risk"
    hosted = np.exp(np.mean([np.log(cost / quantiles.hosted) for cost, quantiles in known]))
    fair = np.exp(np.mean([np.log(cost / quantiles.fair) for cost, quantiles in known]))
    return f"{1 - hosted:.1%} cheaper as hosted, {1 - fair:.1%} at equal risk"


def against_quantiles(rows: Sequence[Row]) -> list[str]:
    lines = ["quantile sizing on demand   hosted      at equal risk, level"]
    for row in rows:
        if row.quantiles:
            sums = f"{row.quantiles.hosted:10.2f} {row.quantiles.fair:10.2f}    {row.quantiles.level:.3f}"
            lines.append(f"{row.case:20} {sums}   {cheaper([row])}")
    lines.append(f"all {len(rows)} cases: {cheaper(rows)}")
    if rich := [row for row in rows if SPOT_IS_RICH in row.case]:
        lines.append(f"where spot is rich ({', '.join(row.case for row in rich)}): {cheaper(rich)}")
    return lines


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
        print("\n".join(against_quantiles(rows)))
        print(f"geometric mean {mean:.4f}; risk kept on {kept} of {len(rows)}; load at the end {load:.1f}")


if __name__ == "__main__":
    main()
