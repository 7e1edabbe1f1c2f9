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
    metadata = write_focus(charges, written)
    again = ingest(deliver(written.read_bytes(), BillFormat.FOCUS))
    assert again == charges
    assert json.loads(metadata.read_text())["Schema"]["FocusVersion"] == "1.2"


def test_parquet_holds_exact_decimals(deliver, tmp_path: Path) -> None:
    charges = ingest(deliver(HEADER + line("0.123456789012345678"), BillFormat.FOCUS))
    write_focus(charges, tmp_path / "bill.parquet")
    table = pq.read_table(tmp_path / "bill.parquet")
    assert table.column_names == list(COLUMNS)
    assert table["BilledCost"].to_pylist() == [Decimal("0.123456789012345678")]


def test_an_unknown_category_and_another_ending_are_refused(deliver, tmp_path: Path) -> None:
    with pytest.raises(ProviderAnswerInvalid, match=r"row 1, ChargeCategory: 'Fun'"):
        ingest(deliver(HEADER + line("1", "Fun"), BillFormat.FOCUS))
    with pytest.raises(UsageError, match=r"bill\.xls"):
        write_focus([], tmp_path / "bill.xls")
