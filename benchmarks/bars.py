"""A table of bars: what was to be reached, what was measured, and whether it was; for people and for programs."""

import json
import sys
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from engine.model.value import Value

Output = Literal["table", "json"]


class Bar(Value):
    """One row. ``reached`` is None where nothing was asked for, or nothing could be measured."""

    what: str
    bar: str
    measured: str
    reached: bool | None
    figures: dict[str, Any] = Field(default_factory=dict)


def tell(text: str) -> None:
    """Progress: on stderr, since stdout is for data."""
    print(text, file=sys.stderr, flush=True)


def show(bars: Sequence[Bar], output: Output) -> None:
    if output == "json":
        print(json.dumps([bar.model_dump(mode="json") for bar in bars], indent=1))
        return
    print("| what | bar | measured | reached |\n|---|---|---|---|")
    for bar in bars:
        print(f"| {bar.what} | {bar.bar} | {bar.measured} | {word(bar.reached)} |")


def word(reached: bool | None) -> str:
    return {True: "yes", False: "no", None: "-"}[reached]


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """25th, 50th and 75th percentile, linear between ranks."""
    return percentile(values, 0.25), percentile(values, 0.5), percentile(values, 0.75)


def percentile(values: Sequence[float], part: float) -> float:
    """``part`` from 0 to 1, linear between ranks. Raises ValueError without values."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    at = part * (len(ordered) - 1)
    below = int(at)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (at - below) * (ordered[above] - ordered[below])
