"""Small cases for the lab's tests, and policies that say what a test wrote down."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from lab.case import Case, parse_case
from lab.wire import Init, Missed, Observe, Order, read_order

RISKS = {
    "gold": {"rank": 0, "max_shortfall": 0.005},
    "silver": {"rank": 1, "max_shortfall": 0.01},
    "bronze": {"rank": 2, "max_shortfall": 0.05},
}


def offer(name: str, option: str, cell: str = "aws/x", **more: Any) -> dict[str, Any]:
    provider, region = cell.split("/")
    fixed = {} if option == "spot" else {"price": more.get("price", "0.10")}
    return {
        "id": name,
        "option": option,
        "provider": provider,
        "region": region,
        "area": "us",
        "cell": cell,
        "group": f"{cell}/m",
        "instance_type": "m.2",
        "vector": {"vcpus": 2.0, "memory_gib": 8.0},
        "shards_per_unit": {"web": 2},
        "lead": 1,
        "min_steps": 1,
        "on_demand_price": "0.10",
        **fixed,
        **more,
    }


def fleet(name: str = "web", move: str = "0.05") -> dict[str, Any]:
    return {"id": name, "vector": {"vcpus": 1, "memory_gib": 4}, "areas": ["us"], "move_usd_per_shard": move}


def pool(name: str, risk: str, demand: Sequence[int], history: Sequence[int] = (), at: str = "web") -> dict[str, Any]:
    return {"id": name, "fleet": at, "risk": risk, "history": list(history), "demand": list(demand)}


def document(
    pools: Sequence[dict[str, Any]],
    offers: Sequence[dict[str, Any]],
    fleets: Sequence[dict[str, Any]] = (),
    step_minutes: int = 60,
) -> dict[str, Any]:
    return {
        "format": "capacity-game-case/1",
        "id": "small",
        "title": "A small case",
        "step_minutes": step_minutes,
        "steps": len(pools[0]["demand"]),
        "start": "2024-07-01 00:00:00+00:00",
        "risk_classes": RISKS,
        "max_shortfall": 0.01,
        "fleets": list(fleets) or [fleet()],
        "pools": list(pools),
        "offers": list(offers),
    }


def case_of(data: Mapping[str, Any]) -> Case:
    return parse_case(json.dumps(data).encode(), "test")


def tiny() -> dict[str, Any]:
    """The worked example of the rules."""
    return document(
        [pool("a", "gold", [3, 4, 3, 3], [3, 3, 4, 3]), pool("b", "bronze", [3, 4, 4, 2], [2, 3, 4, 3])],
        [
            offer("A", "on_demand", price="0.10"),
            offer(
                "B",
                "spot",
                "gcp/y",
                prices=[[-4, "0.03"], [1, "0.04"], [3, "0.03"]],
                available=[[0, 1], [1, 2], [2, 1]],
            ),
            offer("C", "commitment", price="0.06", term=3),
        ],
    )


class Scripted:
    """Answers as written down: by step, an order's fields, a raw line, or a ``Missed``. Keeps what it saw."""

    def __init__(self, *answers: Mapping[str, Any] | str | Missed) -> None:
        self._answers = answers
        self.init: Init | None = None
        self.seen: list[Observe] = []

    def start(self, init: Init) -> None:
        self.init = init

    def answer(self, observe: Observe) -> Order | Missed:
        self.seen.append(observe)
        answer = self._answers[min(observe.step + 1, len(self._answers) - 1)]
        if isinstance(answer, Missed):
            return answer
        line = answer if isinstance(answer, str) else json.dumps({"type": "order", "step": observe.step, **answer})
        return read_order(line)
