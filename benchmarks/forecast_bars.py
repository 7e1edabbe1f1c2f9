"""Measures the forecaster against the bars of docs/performance.md on the development traces.

    python -m benchmarks.forecast_bars --data ../shared/data [--folds FOLDER] [--only business …] [--json FILE]

Nothing that is judged was trained on: business VMs are held-out series in the last 20 % of their span; each other
source is judged by a network that never saw it. Those two networks come from --folds; absent, they are trained first.
"""

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from forecasting.backtest import CHAMPION, Judge, Judged, judge, judgeable, standings
from forecasting.base import History, until
from forecasting.baselines.gradient_boosting import GradientBoosting
from forecasting.baselines.hurdle import intermittent
from forecasting.champion import Champions
from forecasting.losses import geometric_mean
from forecasting.network import Network
from forecasting.pretrained import FINE_NAME, FOLDER, HOURLY_NAME
from forecasting.registry import ModelRegistry
from forecasting.reliability import ADDITIONAL, Questions, calibration_error, reliability
from forecasting.rnn.trained import TrainedRnn
from forecasting.scores import Standing, Tally, ratio, standing
from forecasting.splits import held_out
from forecasting.synthetic import red_noise, synthetic_history
from forecasting.traces import ARRIVALS, BITBRAINS, FINE, FIVE_MINUTES, FOLDS, HOUR, HOURLY, Trace, judged_from
from forecasting.train import HOURLY_RECIPE, PRIME, train

ORIGINS = 12
HORIZON = 24
EVERY = 12
"""Of so many business series, gradient boosting is measured on one."""


@dataclass(frozen=True)
class Row:
    what: str
    bar: str
    measured: str
    reached: bool


def business(data: Path, _: Path) -> list[Row]:
    traces = [trace for trace in BITBRAINS if trace.metric in PRIME]
    judged = _judged(_shipped(HOURLY_NAME), _histories(traces, data, HOUR, held_out), HORIZON)
    own, rnn = _standing(judged, CHAMPION), _standing(judged, "rnn")
    rows = [
        Row(
            f"business VMs (cores, memory), {len(judgeable(judged))} unseen series, WQL / seasonal naive",
            "< 0.68, aim 0.65",
            f"{own.wql_ratio:.3f} (network alone {rnn.wql_ratio:.3f}; worst series {own.worst_ratio:.2f})",
            own.wql_ratio < 0.68,
        ),
        Row(
            "… pinball 0.95 and 0.99, MASE / seasonal naive",
            "-",
            f"{own.pinball_95_ratio:.3f}, {own.pinball_99_ratio:.3f}, {own.mase_ratio:.3f}",
            True,
        ),
        *_coverage("business VMs", own),
    ]
    return rows + _reliability("business VMs", judged.questions)


def boosting(data: Path, _: Path) -> list[Row]:
    """On few of the business series: a model per series and origin, where the network is one for all."""
    traces = [trace for trace in BITBRAINS if trace.metric in PRIME]
    series = _histories(traces, data, HOUR, held_out)[1::EVERY]
    judged = _judged(_shipped(HOURLY_NAME), series, HORIZON, boosting=True)
    own, rnn, all_ = (_standing(judged, name) for name in (GradientBoosting.name, "rnn", CHAMPION))
    return [
        Row(
            f"gradient boosting, every {EVERY}th business series ({len(judgeable(judged))}), WQL / seasonal naive",
            "-",
            f"{own.wql_ratio:.3f} (network {rnn.wql_ratio:.3f}, mixture {all_.wql_ratio:.3f}; worst series "
            f"{own.worst_ratio:.2f}, {rnn.worst_ratio:.2f}, {all_.worst_ratio:.2f})",
            True,
        ),
        Row(
            "… in 80 %, in 90 %, at or below 0.99",
            "-",
            f"{own.coverage_80:.1%}, {own.coverage_90:.1%}, {own.below_99:.1%}",
            True,
        ),
    ]


def unseen(data: Path, folds: Path) -> list[Row]:
    per_source: dict[str, list[float]] = {}
    covered: dict[str, Standing] = {}
    own_all: list[Tally] = []
    for number, sources in enumerate(FOLDS):
        network = _fold(number, data, folds)
        for source in sorted(sources):
            traces = [trace for trace in HOURLY if trace.source == source]
            judged = _judged(network, _histories(traces, data, HOUR), HORIZON)
            kept = judgeable(judged)
            naive, own = judged.tallies["seasonal_naive"], judged.tallies[CHAMPION]
            per_source[source] = [ratio(own[i].loss, naive[i].loss) for i in kept]
            covered[source] = _standing(judged, CHAMPION)
            own_all += [own[i] for i in kept]
    everything = [x for ratios in per_source.values() for x in ratios]
    total = geometric_mean(everything)
    by_source = {source: geometric_mean(ratios) for source, ratios in per_source.items()}
    worst = max(by_source, key=lambda source: by_source[source])
    words = ", ".join(f"{source} {value:.2f}" for source, value in by_source.items())
    return [
        Row(
            f"sources never seen in training, {len(everything)} series, WQL / seasonal naive",
            "< 0.74, aim 0.70",
            f"{total:.3f} ({words})",
            total < 0.74,
        ),
        Row("worst source / seasonal naive", "<= 1.1", f"{by_source[worst]:.2f} ({worst})", by_source[worst] <= 1.1),
        *_coverage("all unseen sources", standing(CHAMPION, own_all, own_all)),
        Row(
            "… source by source: in 80 %, in 90 %, at or below 0.99",
            "-",
            "; ".join(
                f"{source} {s.coverage_80:.1%}, {s.coverage_90:.1%}, {s.below_99:.1%}" for source, s in covered.items()
            ),
            True,
        ),
    ]


def sparse(data: Path, folds: Path) -> list[Row]:
    """Series that are zero in at least 30 % of the hours before the judged span."""
    number = next(i for i, sources in enumerate(FOLDS) if ARRIVALS[0].source in sources)
    judged = {
        "arrivals of rare VM sizes": (_fold(number, data, folds), _histories(ARRIVALS, data, HOUR)),
        "idle VMs": (_shipped(HOURLY_NAME), _histories(BITBRAINS, data, HOUR, held_out)),
    }
    rows = []
    for what, (network, histories) in judged.items():
        kept = [h for h in histories if intermittent(until(h, judged_from(h)))]
        found = _judged(network, kept, HORIZON)
        own = _standing(found, CHAMPION)
        alone = ", ".join(
            f"{name} {_standing(found, name).wql_ratio:.3f}" for name in ("rnn", "hurdle", "hour_of_week")
        )
        rows.append(
            Row(
                f"{what}, {len(judgeable(found))} series, WQL and pinball 0.99 / seasonal naive",
                "-",
                f"{own.wql_ratio:.3f}, {own.pinball_99_ratio:.3f} (each alone, WQL: {alone})",
                True,
            )
        )
    return rows


def fine(data: Path, _: Path) -> list[Row]:
    series = _histories(FINE, data, FIVE_MINUTES, held_out)
    judged = _judged(_shipped(FINE_NAME), series, 12)
    last, own = judged.tallies["last_value"], judged.tallies[CHAMPION]
    kept = [i for i, tally in enumerate(last) if tally.loss > 0]
    result = standing(CHAMPION, [own[i] for i in kept], [last[i] for i in kept])
    prime = [i for i in kept if not series[i].series_id.endswith("kbps")]
    cores = standing(CHAMPION, [own[i] for i in prime], [last[i] for i in prime])
    return [
        Row(
            f"5-minute series, 1 h ahead, {len(kept)} unseen series, WQL / last value",
            "< 1.0, aim 0.95",
            f"{result.wql_ratio:.3f} (without disk and network {cores.wql_ratio:.3f}; worst {result.worst_ratio:.2f})",
            result.wql_ratio < 1.0,
        ),
        *_coverage("5-minute series", result),
    ]


def shifts(_: Path, __: Path) -> list[Row]:
    """Generated: the level doubles, or a crowd comes and goes, at a random moment of the judged span."""
    network = _shipped(HOURLY_NAME)
    rows = []
    for name, change in (("level shift", _shifted), ("flash crowd", _crowded)):
        judged = _judged(network, [change(seed) for seed in range(24)], HORIZON)
        own = _standing(judged, CHAMPION)
        rows.append(
            Row(
                f"{name}, 24 generated series, WQL / seasonal naive",
                "<= 1.1",
                f"{own.wql_ratio:.3f} (worst series {own.worst_ratio:.2f})",
                own.wql_ratio <= 1.1,
            )
        )
    return rows


def inference(_: Path, __: Path) -> list[Row]:
    network = _shipped(HOURLY_NAME)
    field = Champions(network.rnn, (), network, "")
    noise = red_noise(42 * 24, 1)
    pools = [
        History(f"pool-{i}", datetime(2026, 1, 5, tzinfo=UTC), HOUR, np.roll(np.abs(10 + 3 * noise), i))
        for i in range(10_000)
    ]
    started = time.perf_counter()
    made = field.forecast(pools, HORIZON, paths=200)
    spent = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    assert len(made) == len(pools)
    return [
        Row("10,000 pools x 24 steps x 200 paths, one core", "< 60 s", f"{spent:.0f} s", spent < 60),
        Row("… peak memory of the process", "< 4 GB", f"{peak:.1f} GiB", peak < 3.7),
    ]


def training(_: Path, __: Path) -> list[Row]:
    seconds = {name: _shipped(name).rnn.report.seconds for name in (HOURLY_NAME, FINE_NAME)}  # type: ignore[union-attr]
    size = sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) / 2**20
    longest = max(seconds.values())
    words = " + ".join(f"{value:.0f} s {name}" for name, value in seconds.items())
    return [
        Row(
            "training both networks side by side, a core each", "< 10 min", f"{longest:.0f} s ({words})", longest < 600
        ),
        Row("size of the shipped networks", "<= 5 MB", f"{size:.2f} MiB", size < 4.7),
    ]


PARTS: dict[str, Callable[[Path, Path], list[Row]]] = {
    "business": business,
    "boosting": boosting,
    "unseen": unseen,
    "sparse": sparse,
    "fine": fine,
    "shifts": shifts,
    "inference": inference,
    "training": training,
}


def _histories(
    traces: Sequence[Trace], data: Path, freq: timedelta, wanted: Callable[[str], bool] = lambda _: True
) -> list[History]:
    return [h for trace in traces for h in trace.histories(data, freq) if wanted(h.series_id)]


def _judged(network: Network, histories: Sequence[History], horizon: int, *, boosting: bool = False) -> Judged:
    usable = [
        Judge(h, cut)
        for h in histories
        if len(h.values) - (cut := judged_from(h)) >= horizon and np.isfinite(h.values[:cut]).any()
    ]
    return judge(network, usable, horizon, ORIGINS, boosting=boosting)


def _standing(judged: Judged, name: str) -> Standing:
    return next(each for each in standings(judged, judgeable(judged)) if each.forecaster == name)


def _shipped(name: str) -> Network:
    return _network(ModelRegistry(FOLDER).find(name), name)


def _fold(number: int, data: Path, folds: Path) -> Network:
    registry = ModelRegistry(folds / f"fold{number}")
    if registry.find(HOURLY_NAME) is None:
        train(HOURLY_RECIPE, data, registry.root, budget=900, seed=0, left_out=FOLDS[number])
    return _network(registry.find(HOURLY_NAME), f"fold {number}")


def _network(found: TrainedRnn | None, name: str) -> Network:
    if found is None:
        raise SystemExit(f"there is no network {name!r}; run python -m forecasting.train --data FOLDER")
    return Network(found, loaded=True, origin=name)


def _coverage(what: str, own: Standing) -> list[Row]:
    good = abs(own.coverage_80 - 0.8) <= 0.03 and abs(own.coverage_90 - 0.9) <= 0.03
    return [
        Row(f"{what}: in 80 %, in 90 %", "within 3 points", f"{own.coverage_80:.1%}, {own.coverage_90:.1%}", good),
        Row(f"{what}: at or below the 0.99 quantile", ">= 98 %", f"{own.below_99:.1%}", own.below_99 >= 0.98),
    ]


def _reliability(what: str, questions: Questions) -> list[Row]:
    bins = reliability(questions)
    errors = [calibration_error(bins, k) for k in ADDITIONAL]
    worst = max(bins, key=lambda b: abs(b.predicted - b.observed), default=None)
    words = (
        f"; farthest bin {worst.predicted:.0%} said, {worst.observed:.0%} seen, n={worst.questions}" if worst else ""
    )
    return [
        Row(
            f"{what}: P(need >= k more within {HORIZON} h), mean distance from the diagonal, k = 1 … 4",
            "within 5 points",
            ", ".join(f"{error:.1%}" for error in errors) + words,
            max(errors) <= 0.05,
        )
    ]


def _shifted(seed: int) -> History:
    base = synthetic_history(seed=seed, series_id=f"shift-{seed}", days=56, noise=0.1)
    at = int(np.random.default_rng(seed).integers(int(0.82 * len(base.values)), int(0.95 * len(base.values))))
    values = base.values.copy()
    values[at:] *= 2
    return History(base.series_id, base.start, base.freq, values, synthetic=True)


def _crowded(seed: int) -> History:
    base = synthetic_history(seed=seed, series_id=f"crowd-{seed}", days=56, noise=0.1)
    at = int(np.random.default_rng(seed).integers(int(0.82 * len(base.values)), int(0.95 * len(base.values))))
    values = base.values.copy()
    values[at : at + 18] += 4 * values.mean() * 0.85 ** np.arange(18)
    return History(base.series_id, base.start, base.freq, values, synthetic=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.forecast_bars")
    parser.add_argument("--data", type=Path, required=True, help="folder that holds traces/")
    parser.add_argument("--folds", type=Path, default=Path(".shardwright/folds"), help="the two cross-source networks")
    parser.add_argument("--only", nargs="*", choices=sorted(PARTS), help="measure only these")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    given = parser.parse_args(arguments)
    rows: list[Row] = []
    for name in given.only or PARTS:
        started = time.perf_counter()
        found = PARTS[name](given.data, given.folds)
        rows += found
        for row in found:
            print(f"{'  ' if row.reached else '! '}{row.what} | {row.bar} | {row.measured}", flush=True)
        print(f"{name}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
    if given.json:
        given.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    return 0 if all(row.reached for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
