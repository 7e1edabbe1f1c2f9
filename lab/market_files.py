"""Tables of a market as a user has them: what was offered, what spot cost, how much of it could be had.

Parquet or CSV. Bad rows are left out and counted by reason; a file that cannot serve is refused with what it lacks.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from math import floor
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow

from engine.errors import UsageError

ABSURD_USD_H = 10_000
OFFER_COLUMNS = ("provider", "region", "instance_type", "vcpus", "memory_gib", "price_on_demand_usd_h")
SPOT_COLUMNS = ("provider", "region", "instance_type", "timestamp", "price_spot_usd_h")
AVAILABILITY_COLUMNS = ("series_id", "provider", "zone", "timestamp", "value")


@dataclass(frozen=True)
class Kind:
    """A type of instance in a region: how many shards it carries, what it costs per hour."""

    provider: str
    region: str
    instance_type: str
    vcpus: float
    memory_gib: float
    shards: int
    on_demand: Decimal
    spot: Decimal | None

    @property
    def key(self) -> tuple[str, str, str]:
        return self.provider, self.region, self.instance_type

    @property
    def group(self) -> str:
        """What tends to fail together: provider, region and family."""
        family = self.instance_type.rsplit("_", 1)[-1] if "." not in self.instance_type else self.instance_type
        return f"{self.provider}/{self.region}/{family.split('.')[0].split('-')[0]}"


@dataclass(frozen=True)
class Record:
    """Samples of one series, in the order of time."""

    name: str
    provider: str
    place: str
    times: "np.ndarray[tuple[int], np.dtype[np.datetime64]]"
    values: "np.ndarray[tuple[int], np.dtype[np.float64]]"


def read_kinds(path: Path, vcpus: float, memory_gib: float, regions: Sequence[str]) -> tuple[list[Kind], list[str]]:
    """Types that carry at least one shard of ``vcpus`` and ``memory_gib``, cheapest zone of a region; and notes."""
    table = _table(path, OFFER_COLUMNS, "--offers")
    for name in ("vcpus", "memory_gib", "price_on_demand_usd_h", "price_spot_usd_h"):
        if name in table:
            table[name] = pd.to_numeric(table[name], errors="coerce")
    left_out: Counter[str] = Counter()
    kinds: dict[tuple[str, str, str], Kind] = {}
    for row in table.to_dict("records"):
        reason, kind = _kind({str(name): value for name, value in row.items()}, vcpus, memory_gib, regions)
        if kind is None:
            left_out[reason] += 1
        elif kind.key not in kinds or kind.on_demand < kinds[kind.key].on_demand:
            kinds[kind.key] = kind
    notes = [f"offers: {count} rows left out: {reason}" for reason, count in sorted(left_out.items())]
    if not kinds:
        raise UsageError(
            f"{path} offers nothing that carries a shard",
            why="; ".join(notes) or "it holds no rows",
            next_step="check --vcpus, --memory-gib and --regions, or give another file with --offers",
        )
    return list(kinds.values()), notes


def _kind(row: dict[str, object], vcpus: float, memory_gib: float, regions: Sequence[str]) -> tuple[str, Kind | None]:
    names = [row[name] for name in ("provider", "region", "instance_type")]
    if not all(isinstance(name, str) and name for name in names):
        return "no provider, region or type", None
    if regions and row["region"] not in regions:
        return "another region", None
    if isinstance(row.get("accelerator_name"), str) and row["accelerator_name"]:
        return "has an accelerator", None
    size = (_number(row["vcpus"]), _number(row["memory_gib"]))
    if not all(0 < each < 1e6 for each in size):
        return "no size", None
    price = _price(row["price_on_demand_usd_h"])
    if price is None:
        return "no price, or an absurd one", None
    shards = floor(min(size[0] / vcpus if vcpus else 1e6, size[1] / memory_gib if memory_gib else 1e6))
    if shards < 1:
        return "too small for a shard", None
    return "", Kind(
        provider=str(row["provider"]),
        region=str(row["region"]),
        instance_type=str(row["instance_type"]),
        vcpus=size[0],
        memory_gib=size[1],
        shards=min(shards, 1_000_000),
        on_demand=price,
        spot=_price(row.get("price_spot_usd_h")),
    )


def read_spot_prices(path: Path, kinds: Sequence[Kind]) -> dict[tuple[str, str, str], Record]:
    """Price records of those types."""
    table = _table(path, SPOT_COLUMNS, "--spot")
    wanted = {kind.key for kind in kinds}
    keys = list(zip(table["provider"], table["region"], table["instance_type"], strict=True))
    table = _timed(table[[key in wanted for key in keys]], "price_spot_usd_h", path)
    table = table[(table["price_spot_usd_h"] > 0) & (table["price_spot_usd_h"] < ABSURD_USD_H)]
    found = {}
    for key, rows in table.groupby(["provider", "region", "instance_type"], sort=True):
        provider, region, kind = (str(part) for part in key)
        times, values = rows["timestamp"].to_numpy(), rows["price_spot_usd_h"].to_numpy(dtype=float)
        found[provider, region, kind] = Record(kind, provider, region, times, values)
    return found


def read_availability(path: Path) -> list[Record]:
    """How many spot instances could be had, by place; rows of another ``kind`` are not about that."""
    table = _table(path, AVAILABILITY_COLUMNS, "--availability")
    if "kind" in table:
        table = table[table["kind"] == "availability"]
    table = _timed(table, "value", path)
    table = table[table["value"] >= 0]
    records = []
    for name, rows in table.groupby("series_id", sort=True):
        first = rows.iloc[0]
        times, values = rows["timestamp"].to_numpy(), rows["value"].to_numpy(dtype=float)
        records.append(Record(str(name), str(first["provider"]), str(first["zone"]), times, values))
    if not records:
        raise UsageError(
            f"{path} records no availability",
            why="no row has a time and a value of 0 or more",
            next_step=f"give a Parquet or CSV file with {', '.join(AVAILABILITY_COLUMNS)}",
        )
    return records


def _table(path: Path, columns: Sequence[str], option: str) -> pd.DataFrame:
    try:
        with path.open("rb") as file:
            is_parquet = file.read(4) == b"PAR1"
        table = pd.read_parquet(path) if is_parquet else pd.read_csv(path, encoding="utf-8-sig")
    except (pyarrow.ArrowException, ValueError, OSError) as problem:
        why = problem.strerror if isinstance(problem, OSError) and problem.strerror else str(problem).splitlines()[0]
        raise UsageError(f"{path} cannot be read", why=why, next_step=f"give Parquet or CSV with {option}") from problem
    missing = [name for name in columns if name not in table]
    if missing:
        raise UsageError(
            f"{path} lacks {', '.join(missing)}",
            why=f"it has {', '.join(map(str, table.columns[:12]))}",
            next_step=f"{option} needs {', '.join(columns)}",
        )
    return table


def _timed(table: pd.DataFrame, value: str, path: Path) -> pd.DataFrame:
    table = table.copy()
    table["timestamp"] = pd.to_datetime(table["timestamp"], utc=True, errors="coerce").dt.tz_localize(None)
    table[value] = pd.to_numeric(table[value], errors="coerce")
    return table.dropna(subset=["timestamp", value]).sort_values("timestamp", kind="stable")


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")


def _price(value: object) -> Decimal | None:
    price = _number(value)
    return Decimal(str(round(price, 6))) if 1e-6 <= price < ABSURD_USD_H else None
