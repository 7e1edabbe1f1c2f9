"""The same work in one process and over Ray workers of this machine, in one run: wall time, CPU time, and the bytes.

    python -m benchmarks.scale_out [--workers 2] [--only backtest inference …] [--rounds 3] [--data ../shared/data]

Each round does the work once each way; the best of each way counts. The cluster starts once, before; its start-up is
told beside the ratios. ``replays`` needs the game cases under ``--data``. Exits with 1 where a result differs or a
ratio is below the bar.
"""

import argparse
import gc
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from importlib import import_module
from pathlib import Path

import numpy as np
import psutil
import torch

from forecasting.backtest import Judge, judge
from forecasting.base import History
from forecasting.champion import Champions, chosen
from forecasting.network import Network
from forecasting.pretrained import pretrained
from forecasting.sample_forecast import SampleForecast
from forecasting.scale.engines import Engine, spread_over
from forecasting.scale.spread import IN_PROCESS, Spread
from forecasting.scores import Tally
from forecasting.synthetic import red_noise, synthetic_fleet
from lab.case import read_case
from lab.experiment import run_lab

HOUR = timedelta(hours=1)
HORIZON, PATHS = 24, 200
BAR = 1.6
BASELINE = "quantile-diversified"

Result = Callable[[], object]
Work = Callable[[Spread], Result]
"""What is measured; it returns how to write its result down, which is not."""


@dataclass(frozen=True)
class Run:
    """``others``: the share of the machine that was taken by processes that are not ours."""

    seconds: float
    cpu: float
    others: float
    digest: str


def backtest(_data: Path) -> Work:
    """Two hundred series of ten weeks, eight origins, every forecaster."""
    usable = [Judge(h, int(0.8 * len(h.values))) for h in synthetic_fleet(200, seed=1, days=70)]
    network = _network()

    def work(spread: Spread) -> Result:
        judged = judge(network, usable, HORIZON, 8, spread=spread)
        return lambda: (
            [_exact(tally) for tallies in judged.tallies.values() for tally in tallies],
            judged.questions,
            judged.leaders,
            judged.fans,
        )

    return work


def choice(_data: Path) -> Work:
    """What ``shardwright forecast`` does after training, for a thousand pools: score, choose, mix, forecast."""
    network, pools = _network(), _pools(1000)

    def work(spread: Spread) -> Result:
        field = chosen(network, pools, HORIZON, spread=spread)
        made = field.forecast(pools, HORIZON, paths=PATHS, spread=spread)
        return lambda: (field.choices, _digests(made))

    return work


def inference(_data: Path) -> Work:
    """Ten thousand pools by the network alone: the least work for each byte that has to travel."""
    network, pools = _network(), _pools(10_000)
    field = Champions(network.rnn, (), network, "")

    def work(spread: Spread) -> Result:
        made = field.forecast(pools, HORIZON, paths=PATHS, spread=spread)
        return lambda: _digests(made)

    return work


def replays(data: Path) -> Work:
    """Every game case with the best baseline, their bounds included: a play is one piece, so the longest one tells."""
    cases = [read_case(path) for path in sorted((data / "game").glob("*.json.gz"))]
    if not cases:
        raise SystemExit("no cases found; give their folder's parent with --data")

    def work(spread: Spread) -> Result:
        report = run_lab(cases, [BASELINE], spread=spread)
        return lambda: [(case.bound.cost, case.of(BASELINE).result, case.of(BASELINE).regret) for case in report.cases]

    return work


PARTS: dict[str, Callable[[Path], Work]] = {
    "backtest": backtest,
    "choice": choice,
    "inference": inference,
    "replays": replays,
}


def _load(_shared: None, _piece: int) -> None:
    """What a worker brings in once is part of its start-up."""
    import_module("forecasting.backtest")


def _network() -> Network:
    return Network(pretrained(HOUR, HORIZON), loaded=True, origin="shipped")


def _pools(count: int) -> list[History]:
    noise = np.abs(10 + 3 * red_noise(42 * 24, 1))
    start = datetime(2026, 1, 5, tzinfo=UTC)
    return [History(f"pool-{i}", start, HOUR, np.roll(noise, i)) for i in range(count)]


def _exact(tally: Tally) -> tuple[object, ...]:
    return tuple(value.tobytes() if isinstance(value, np.ndarray) else value for value in vars(tally).values())


def _digests(made: Sequence[SampleForecast]) -> list[str]:
    return [sha256(each.sample_paths(each.held).tobytes()).hexdigest() for each in made]


def _measured(work: Work, spread: Spread) -> Run:
    """The digest is taken afterwards, of every number in full."""
    gc.collect()
    cpu, busy, started = _cpu_seconds(), _busy_seconds(), time.perf_counter()
    result = work(spread)
    seconds, cpu, busy = time.perf_counter() - started, _cpu_seconds() - cpu, _busy_seconds() - busy
    others = max(busy - cpu, 0.0) / seconds / (os.cpu_count() or 1)
    return Run(seconds, cpu, others, sha256(repr(result()).encode()).hexdigest()[:12])


def _cpu_seconds() -> float:
    """Of this process and all that it started, the cluster included."""
    own = psutil.Process()
    times = [process.cpu_times() for process in (own, *own.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def _busy_seconds() -> float:
    """Of the whole machine."""
    times = psutil.cpu_times()
    return times.user + times.nice + times.system + times.irq + times.softirq


def _told(name: str, alone: Sequence[Run], spread: Sequence[Run], workers: int) -> bool:
    """Whether the results are the same and the bar is reached."""
    one, many = (min(runs, key=lambda run: run.seconds) for runs in (alone, spread))
    same = len({run.digest for run in (*alone, *spread)}) == 1
    ratio = one.seconds / many.seconds
    print(
        f"{name}: one process {one.seconds:.1f} s ({one.cpu:.1f} s of CPU), {workers} workers {many.seconds:.1f} s "
        f"({many.cpu:.1f} s of CPU); ratio {ratio:.2f}, bar {BAR}; by CPU alone at most "
        f"{min(run.cpu for run in alone) * workers / min(run.cpu for run in spread):.2f}; "
        f"results {'the same' if same else 'DIFFER'}; other programs took {one.others:.0%} and "
        f"{many.others:.0%} of the machine",
        flush=True,
    )
    return same and ratio >= BAR


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale_out")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", nargs="*", choices=sorted(PARTS), help="measure only these")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    good = True
    started = time.perf_counter()
    with spread_over(Engine.RAY, given.workers) as cluster:
        list(cluster.map(_load, None, range(given.workers), what="loading"))
        print(f"start-up of {given.workers} workers: {time.perf_counter() - started:.1f} s")
        for name in given.only or PARTS:
            work = PARTS[name](given.data)
            alone, spread = [], []
            for _ in range(given.rounds):
                alone.append(_measured(work, IN_PROCESS))
                spread.append(_measured(work, cluster))
            good &= _told(name, alone, spread, given.workers)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
