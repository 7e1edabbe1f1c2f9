import json
from decimal import Decimal
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from engine.billing.base import ingest
from engine.billing.focus import COLUMNS, write_focus
from engine.errors import ProviderAnswerInvalid, UsageError
from engine.model.billing import BillFormat

HEADER = (
    "BilledCost,BillingCurrency,BillingAccountId,BillingPeriodStart,BillingPeriodEnd,ChargePeriodStart,"
    "ChargePeriodEnd,ChargeCategory,ChargeDescription,ProviderName,ServiceName,Tags\n"
)
TIMES = "2026-11-01T00:00:00Z,2026-12-01T00:00:00Z,2026-11-23T10:00:00Z,2026-11-23T11:00:00Z"


def line(cost: str, category: str = "Usage") -> str:
    return f'{cost},USD,tenant,{TIMES},{category},a unit,harbor,capacity,"{{""shardwright-node"": ""n1""}}"\n'


def test_what_is_written_is_read_back(deliver, tmp_path: Path) -> None:
    charges = ingest(deliver(HEADER + line("0.123456789012345678") + line("-0.01", "Adjustment"), BillFormat.FOCUS))
    written = tmp_path / "bill.csv"
    metadata = write_focus(charges, written).metadata
    again = ingest(deliver(written.read_bytes(), BillFormat.FOCUS))
    assert again == charges
    assert json.loads(metadata.read_text())["Schema"]["FocusVersion"] == "1.2"


def test_parquet_holds_exact_decimals(deliver, tmp_path: Path) -> None:
    charges = ingest(deliver(HEADER + line("0.123456789012345678"), BillFormat.FOCUS))
    write_focus(charges, tmp_path / "bill.parquet")
    table = pq.read_table(tmp_path / "bill.parquet")
    assert table.column_names == list(COLUMNS)
    assert table["BilledCost"].to_pylist() == [Decimal("0.123456789012345678")]


def test_parquet_rounds_what_it_cannot_hold_and_names_what_is_too_large(deliver, tmp_path: Path) -> None:
    charges = ingest(
        deliver(HEADER + line("1.23456789012345678E-7") + line("-0.0000000000000000005"), BillFormat.FOCUS)
    )
    assert write_focus(charges, tmp_path / "bill.parquet").rows == 2
    table = pq.read_table(tmp_path / "bill.parquet")
    assert table["BilledCost"].to_pylist() == [Decimal("0.000000123456789012"), Decimal(0)]
    large = charges[0].model_copy(update={"pricing_quantity": Decimal("1E+20")})
    with pytest.raises(UsageError, match=r"PricingQuantity 1E\+20 is too large"):
        write_focus([large], tmp_path / "other.parquet")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("other")] == []


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        ("Tags", "[]"),
        ("Tags", "{"),
        ("Tags", "[" * 100_000),
        ("Tags", '"{""a"": ""\\ud800""}"'),
        ("BillingCurrency", "usd"),
        ("BilledCost", "1E+99999"),
        ("x_ShardwrightChargeId", "x" * 257),
        ("x_ShardwrightChargeId", "x\0"),
        ("Tags", '"' + "x" * 200_000 + '"'),
    ],
    ids=["list", "no JSON", "deep", "surrogate", "currency", "enormous", "long id", "NUL", "large"],
)
def test_a_row_that_makes_no_charge_is_named(deliver, column: str, cell: str) -> None:
    good = line("1").replace('"{""shardwright-node"": ""n1""}"', "").strip()
    cells = dict(zip(HEADER.strip().split(","), good.split(","), strict=True)) | {"x_ShardwrightChargeId": "1"}
    bad = cells | {column: cell}
    text = "\n".join(",".join(row) for row in (cells, cells.values(), bad.values()))
    with pytest.raises(ProviderAnswerInvalid, match=r"shop bill inv-1, (row 2|line 3)"):
        ingest(deliver(text, BillFormat.FOCUS))


def test_an_unknown_category_and_another_ending_are_refused(deliver, tmp_path: Path) -> None:
    with pytest.raises(ProviderAnswerInvalid, match=r"row 1, ChargeCategory: 'Fun'"):
        ingest(deliver(HEADER + line("1", "Fun"), BillFormat.FOCUS))
    with pytest.raises(UsageError, match=r"bill\.xls"):
        write_focus([], tmp_path / "bill.xls")
