"""How long ``shardwright offers`` takes over a market of 100,000 real offers, from the start of the process to its end.

    python -m benchmarks.offers_command --data ../shared/data [--offers 100000] [--runs 3] [--output json]

The command is the real one with its table (tick, why not); only its providers are replaced by ones that sell the offers
of the file, 1 % of them spoiled so that they are refused. Reading the file is part of the run, and told by itself.
The baseline, in the same run, is the command over 100 offers.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.offer_market import load
from engine.collection import collection_paused
from engine.model.market import Offer, OfferQuery, Quote
from engine.model.money import Money
from engine.model.value import Interval
from tests.small_configuration import GOOD

_SPOILED_EVERY = 100


@dataclass(frozen=True)
class Row:
    offers: int
    refused: int
    wall_seconds: float
    """Median of the runs, start and imports included."""
    cpu_seconds: float
    loading_seconds: float
    load: float
    """Of the machine, before the runs."""


class _Seller:
    """Sells what it was given, and keeps nothing of it."""

    def __init__(self, name: str, stock: list[Offer]) -> None:
        self.name, self._stock = name, stock

    def offers(self, need: OfferQuery) -> Iterable[Offer]:
        stock, self._stock = self._stock, []
        return stock

    def quote(self, offer: Offer, quantity: int, term: Interval) -> Quote:
        raise NotImplementedError


@collection_paused()
def sellers(data: Path, offers: int) -> dict[str, _Seller]:
    stocks: dict[str, list[Offer]] = {}
    for number, offer in enumerate(load(data, offers)):
        if number % _SPOILED_EVERY == 0:
            offer = offer.model_copy(update={"price": Money(amount=-offer.price.amount)})
        stocks.setdefault(offer.provider, []).append(offer)
    return {name: _Seller(name, stock) for name, stock in stocks.items()}


def run_command(data: Path, offers: int, config: Path) -> None:
    """In a process of its own: the command line as installed, with these sellers."""
    from engine.app import configured
    from engine.cli.main import run as shardwright

    began = time.perf_counter()
    providers = sellers(data, offers)
    print(json.dumps(time.perf_counter() - began), file=sys.stderr)
    configured.open_providers = lambda *_: providers  # type: ignore[assignment]
    sys.argv = ["shardwright", "offers", "--config", str(config)]
    shardwright()


def measure(data: Path, offers: int, runs: int) -> Row:
    load_before = os.getloadavg()[0]
    walls, cpus, loadings, told = [], [], [], ""
    with tempfile.TemporaryDirectory(prefix="sw-offers-") as folder:
        config = Path(folder) / "shardwright.toml"
        config.write_text(GOOD)
        command = [sys.executable, "-m", "benchmarks.offers_command", "--data", str(data), "--offers", str(offers)]
        for _ in range(runs):
            began, cpu = time.perf_counter(), _children()
            done = subprocess.run([*command, "--as-command", str(config)], capture_output=True, text=True, check=False)
            walls.append(time.perf_counter() - began)
            cpus.append(_children() - cpu)
            if done.returncode:
                raise SystemExit(f"shardwright offers failed ({done.returncode}): {done.stderr}")
            loadings.append(float(done.stderr.splitlines()[0]))
            told = done.stdout
    refused = -(-offers // _SPOILED_EVERY)
    for line in (f"{offers - refused} offers", f"{refused} offers refused", "negative price", "✔", "✘"):
        if line not in told:
            raise SystemExit(f"the command did not tell {line!r}:\n{told}")
    return Row(
        offers=offers,
        refused=refused,
        wall_seconds=statistics.median(walls),
        cpu_seconds=statistics.median(cpus),
        loading_seconds=statistics.median(loadings),
        load=load_before,
    )


def _children() -> float:
    times = os.times()
    return times.children_user + times.children_system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--offers", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--output", choices=("table", "json"), default="table")
    parser.add_argument("--as-command", type=Path, metavar="CONFIG", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.as_command is not None:
        run_command(given.data, given.offers, given.as_command)
        return
    rows = [measure(given.data, offers, given.runs) for offers in (100, given.offers)]
    if given.output == "json":
        json.dump([asdict(row) for row in rows], sys.stdout, indent=2)
        print()
        return
    for row in rows:
        print(
            f"shardwright offers over {row.offers} ({row.refused} refused): {row.wall_seconds:.2f} s wall,"
            f" {row.cpu_seconds:.2f} s CPU, {row.loading_seconds:.2f} s of it loading; load {row.load:.1f}"
        )


if __name__ == "__main__":
    main()
