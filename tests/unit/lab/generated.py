"""A small case drawn from a seed: two fleets, daily loads with noise and bursts, spot that moves, commitments."""

import random
from math import pi, sin
from typing import Any

from lab.case import Case
from tests.unit.lab.cases import case_of, document, fleet, offer, pool

HISTORY = 14 * 24


def generated(seed: int = 7, steps: int = 96) -> Case:
    draw = random.Random(seed)
    pools = [
        _pool(draw, name, risk, at, steps)
        for name, risk, at in (
            ("a", "gold", "web"),
            ("b", "silver", "web"),
            ("c", "bronze", "web"),
            ("d", "silver", "app"),
            ("e", "bronze", "app"),
        )
    ]
    data = document(pools, _offers(draw, steps), [fleet("web", "0.0885"), fleet("app", "0.0455")])
    return case_of({**data, "id": f"generated-{seed}"})


def _pool(draw: random.Random, name: str, risk: str, at: str, steps: int) -> dict[str, Any]:
    base, swing, phase = draw.uniform(8, 30), draw.uniform(0.1, 0.6), draw.uniform(0, 2 * pi)
    demand = []
    for step in range(HISTORY + steps):
        level = base * (1 + swing * sin(2 * pi * step / 24 + phase)) * draw.lognormvariate(0, 0.08)
        demand.append(round(level * (1.5 if draw.random() < 0.01 else 1.0)))
    return pool(name, risk, demand[HISTORY:], demand[:HISTORY], at)


def _offers(draw: random.Random, steps: int) -> list[dict[str, Any]]:
    offers = []
    for cell in ("aws/us-east-1", "aws/eu-west-1", "gcp/us-east1", "azure/eastus"):
        for size in (2, 4, 8):
            carried = {"web": size, "app": size} if draw.random() < 0.7 else {"web": size}
            price = round(size * draw.uniform(0.045, 0.06), 4)
            common = {"cell": cell, "shards_per_unit": carried, "on_demand_price": f"{price:.4f}"}
            offers.append(offer(f"{cell}:{size}:od", "on_demand", price=f"{price:.4f}", **common))
            lead = 2 if cell.startswith("azure") and size == 4 else 1
            points = {"prices": _prices(draw, price, steps), "available": _depths(draw, steps)}
            offers.append(offer(f"{cell}:{size}:spot", "spot", lead=lead, **points, **common))
        term = draw.choice((24, 48))
        commitment = {"cell": cell, "shards_per_unit": {"web": 2}, "price": "0.0620", "term": term}
        offers.append(offer(f"{cell}:2:commit", "commitment", **commitment))
    return offers


def _prices(draw: random.Random, on_demand: float, steps: int) -> list[list[Any]]:
    price = on_demand * draw.uniform(0.2, 0.6)
    points: list[list[Any]] = [[-HISTORY, f"{price:.4f}"]]
    for step in range(-HISTORY + 1, steps):
        if draw.random() < 0.03:
            price = max(0.001, price * draw.uniform(0.85, 1.2))
            points.append([step, f"{price:.4f}"])
    return points


def _depths(draw: random.Random, steps: int) -> list[list[int]]:
    depth = draw.randint(0, 6)
    points = [[0, depth]]
    for step in range(1, steps):
        if draw.random() < 0.15:
            depth = max(0, depth + draw.choice((-3, -1, 1, 2)))
            points.append([step, depth])
    return points
