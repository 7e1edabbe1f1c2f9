"""Ten years at one minute: reading, mending and checking a usage file, beside plain pandas on the same file.

    .venv/bin/python benchmarks/read_usage.py [--years 10]

Everything is done in processes of its own (a child's peak of resident memory begins at its parent's size).
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

PLAIN, OURS = "pandas alone", "read_usage + quality_report"


def write(folder: Path, years: float) -> None:
    steps = round(years * 365.25 * 1440)
    noise = np.random.default_rng(0).normal(0, 0.1, steps)
    values = (5 + np.sin(np.arange(steps) * 2 * np.pi / 1440) + noise).round(4)
    times = pd.date_range("2016-01-01", periods=steps, freq="min", tz="UTC")
    table = pd.DataFrame({"series_id": "a", "timestamp": times, "value": values})
    table.to_parquet(folder / "usage.parquet")
    table.assign(timestamp=times.strftime("%Y-%m-%dT%H:%M:%SZ")).to_csv(folder / "usage.csv", index=False)


def measure(how: str, path: Path) -> None:
    from datetime import UTC, datetime

    from forecasting.quality import quality_report
    from forecasting.usage import read_usage

    started = time.perf_counter()
    if how == OURS:
        report = quality_report(read_usage(path), now=datetime.now(UTC))
        assert report.series[0].clean
    elif path.suffix == ".csv":
        pd.to_datetime(pd.read_csv(path)["timestamp"], utc=True)
    else:
        pd.read_parquet(path)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "peak_mib": peak}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--years", type=float, default=10.0)
    parser.add_argument("--measure", nargs=2, metavar=("HOW", "PATH"), help=argparse.SUPPRESS)
    parser.add_argument("--write", type=Path, metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        write(options.write, options.years)
        return
    if options.measure:
        measure(options.measure[0], Path(options.measure[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, __file__, "--write", folder, "--years", str(options.years)], check=True)
        for path in (Path(folder) / "usage.parquet", Path(folder) / "usage.csv"):
            rows = {}
            for how in (PLAIN, OURS):
                command = [sys.executable, __file__, "--measure", how, str(path)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                rows[how] = json.loads(done.stdout)
                print(f"{path.suffix[1:]:8} {how:28} {rows[how]['seconds']:6.1f} s  {rows[how]['peak_mib']:6.0f} MiB")
            print(f"{path.suffix[1:]:8} ratio {rows[OURS]['seconds'] / rows[PLAIN]['seconds']:.1f}")


if __name__ == "__main__":
    main()
