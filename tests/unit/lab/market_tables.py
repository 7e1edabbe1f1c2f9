"""Small tables of usage, offers, spot prices and availability, as a user would have them."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd

END = datetime(2024, 7, 1, tzinfo=UTC)
DAYS = 10
STEPS = DAYS * 24


def moments(count: int, hours: int = 1, end: datetime = END) -> list[datetime]:
    return [end - timedelta(hours=hours * (count - at)) for at in range(count)]


def usage(path: Path, count: int = STEPS) -> Path:
    rows = [
        {"series_id": name, "timestamp": moment, "value": base + (at % 24) / 4}
        for name, base in (("web", 10.0), ("db", 4.0))
        for at, moment in enumerate(moments(count))
    ]
    return written(path, rows)


def offers(path: Path) -> Path:
    rows = [
        row("aws", "us-east-1", "m5.large", 2, 8, 0.096),
        row("aws", "us-east-1", "m5.xlarge", 4, 16, 0.192, 0.07),
        row("gcp", "us-east1", "n2-standard-4", 4, 16, 0.2, 0.05),
        row("gcp", "us-east1", "n2-standard-4", 4, 16, 0.19, 0.05),  # another zone, cheaper
        row("azure", "eastus", "Standard_D4s_v5", 4, 16, 0.2, 0.04),
        row("aws", "us-east-1", "g5.xlarge", 4, 16, 1.0) | {"accelerator_name": "A10G"},
        row("aws", "us-east-1", "free.large", 2, 8, 0.0),
        row("aws", "us-east-1", "negative.large", 2, 8, -0.1),
        row("aws", "us-east-1", "absurd.large", 2, 8, 1e9),
        row("aws", "us-east-1", "nano", 0.5, 0.5, 0.01),
        row("aws", "us-east-1", "sizeless", None, None, 0.1),
        row("aws", "us-east-1", None, 2, 8, 0.1),
    ]
    return written(path, rows)


def row(
    provider: str,
    region: str,
    kind: str | None,
    vcpus: float | None,
    memory: float | None,
    price: float,
    spot: float | None = None,
) -> dict[str, object]:
    return {
        "provider": provider,
        "region": region,
        "instance_type": kind,
        "vcpus": vcpus,
        "memory_gib": memory,
        "price_on_demand_usd_h": price,
        "price_spot_usd_h": spot,
        "accelerator_name": None,
    }


def spot(path: Path, end: datetime = END) -> Path:
    rows = [
        {
            "provider": "aws",
            "region": "us-east-1",
            "instance_type": "m5.xlarge",
            "timestamp": moment,
            "price_spot_usd_h": 0.06 + 0.001 * at,
        }
        for at, moment in enumerate(moments(12, 24, end))
    ]
    return written(path, rows)


def availability(path: Path, end: datetime = END) -> Path:
    rows = [
        {
            "series_id": f"aws-{zone}",
            "kind": "availability",
            "provider": "aws",
            "zone": zone,
            "timestamp": moment,
            "value": 0 if at % 20 == 0 else 4,
        }
        for zone in ("us-east-1a", "us-west-2b")
        for at, moment in enumerate(moments(STEPS * 2, 1, end))
    ]
    return written(path, rows)


def written(path: Path, rows: list[dict[str, object]]) -> Path:
    table = pd.DataFrame(rows)
    if path.suffix == ".csv":
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path)
    return path
