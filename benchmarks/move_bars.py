"""What moves must reach, measured: against plain QEMU driven by hand, in the same run.

    python -m benchmarks.move_bars [--only pairs gaps evacuation simulator faults rogue limits] [--quick]

Root, QEMU and network namespaces are needed. The table goes to stdout, what happens meanwhile to stderr.
"""

import argparse
import signal
import sys
from collections.abc import Callable, Sequence

import structlog

from benchmarks import client_gaps, evacuations, safety_bars
from benchmarks.bars import Bar, show
from benchmarks.move_pairs import bars as pair_bars
from benchmarks.move_pairs import pairs_on_two_nodes


def pairs(options: argparse.Namespace) -> list[Bar]:
    with pairs_on_two_nodes() as running:
        return pair_bars(running.run(options.pairs), running.lost)


def gaps(options: argparse.Namespace) -> list[Bar]:
    return [client_gaps.measure(options.moves)]


def evacuation(options: argparse.Namespace) -> list[Bar]:
    return [evacuations.measure(options.evacuations, full=options.full_disks)]


def simulator(options: argparse.Namespace) -> list[Bar]:
    return [safety_bars.simulator(options.seeds)]


def faults(options: argparse.Namespace) -> list[Bar]:
    return [safety_bars.faults(options.seed, options.runs)]


def rogue(_options: argparse.Namespace) -> list[Bar]:
    return [safety_bars.rogue()]


def limits(options: argparse.Namespace) -> list[Bar]:
    return safety_bars.limits(options.seconds)


PARTS: dict[str, Callable[[argparse.Namespace], list[Bar]]] = {
    "pairs": pairs,
    "gaps": gaps,
    "evacuation": evacuation,
    "simulator": simulator,
    "faults": faults,
    "rogue": rogue,
    "limits": limits,
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.move_bars")
    parser.add_argument("--only", nargs="*", choices=sorted(PARTS), help="measure only these")
    parser.add_argument("--pairs", type=int, default=12, help="moves of ours and as many by hand, in turns")
    parser.add_argument("--moves", type=int, default=30, help="under one client")
    parser.add_argument("--evacuations", type=int, default=20)
    parser.add_argument("--full-disks", action="store_true", help="evacuate with every block of the disks in use")
    parser.add_argument("--seeds", type=int, default=2000, help="of the simulator")
    parser.add_argument("--runs", type=int, default=108, help="of the fault campaign")
    parser.add_argument("--seed", type=int, default=1, help="of the fault campaign")
    parser.add_argument("--seconds", type=int, default=6, help="for each of a shard's limits at each setting")
    parser.add_argument("--quick", action="store_true", help="a few of each")
    parser.add_argument("--output", choices=("table", "json"), default="table")
    given = parser.parse_args(arguments)
    if given.quick:
        given.pairs, given.moves, given.evacuations = 3, 5, 2
        given.seeds, given.runs = 200, 3
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that nothing is left behind
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    rows = [row for name in given.only or PARTS for row in PARTS[name](given)]
    show(rows, given.output)
    return 1 if any(row.reached is False for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
