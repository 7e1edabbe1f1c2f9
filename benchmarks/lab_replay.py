"""Steps a second of the lab's game without a planner: orders are written beforehand and change at every step.

    .venv/bin/python -m benchmarks.lab_replay [--data ../shared/data]

Each fleet wants ten spot and two on-demand offers in amounts that swing, with fallback, so that units are asked for,
denied, reclaimed, given back and moved throughout. The best of three plays counts, since the machine may be busy.
"""

import argparse
from pathlib import Path
from time import perf_counter

from lab.case import Case, read_case
from lab.game import Game
from lab.wire import Init, Order

OFFERS = {"spot": 10, "on_demand": 2}
SWING = (1, 3, 2, 4)


def written_orders(init: Init) -> list[Order]:
    orders = []
    for step in range(-1, init.steps - 1):
        targets: dict[str, dict[str, int]] = {}
        fallback: dict[str, tuple[str, ...]] = {}
        for fleet in init.fleets:
            fitting = [offer for offer in init.offers if fleet.id in offer.shards_per_unit]
            chosen = [
                offer.id
                for option, most in OFFERS.items()
                for offer in [o for o in fitting if o.option == option][:most]
            ]
            targets[fleet.id] = {name: SWING[(step + at) % 4] for at, name in enumerate(chosen)}
            quick = [offer.id for offer in fitting if offer.option == "on_demand" and offer.lead == 1]
            fallback[fleet.id] = tuple(quick[:1])
        orders.append(Order(step=step, targets=targets, fallback=fallback))
    return orders


def seconds(case: Case) -> tuple[float, Game]:
    game = Game(case)
    orders = written_orders(game.init())
    began = perf_counter()
    for order in orders:
        game.observe()
        game.step(order)
    return perf_counter() - began, game


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    paths = sorted((parser.parse_args().data / "game").glob("*.json.gz"))
    if not paths:
        raise SystemExit("no cases found; give their folder's parent with --data")
    print("case                pools offers  steps   steps/s  reclaimed   moved")
    for path in paths:
        case = read_case(path)
        best, game = min((seconds(case) for _ in range(3)), key=lambda each: each[0])
        size = f"{len(case.pools):5} {len(case.offers):6} {case.steps:6}"
        print(f"{case.id:19} {size} {case.steps / best:9.0f} {game.tally.preemptions:10} {game.tally.moves:7}")


if __name__ == "__main__":
    main()
