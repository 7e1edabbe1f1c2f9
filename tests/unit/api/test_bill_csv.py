"""The streamed bill says exactly what the written file says."""

from pathlib import Path

from engine.api.bill_csv import bill_csv
from engine.billing.focus import write_focus
from tests.sample_view import SampleView


def test_the_download_is_the_file_that_the_command_writes(tmp_path: Path) -> None:
    rows = tuple(SampleView().charges())
    path = tmp_path / "bill.csv"
    write_focus(rows, path)
    assert "".join(bill_csv(rows)).encode() == path.read_bytes()


def test_a_bill_without_charges_is_its_header() -> None:
    lines = list(bill_csv(()))
    assert len(lines) == 1
    assert "BilledCost" in lines[0]


def test_one_charge_at_a_time_is_read() -> None:
    """Its size does not matter."""
    read = []

    def charges():  # type: ignore[no-untyped-def]
        for charge in SampleView().charges():
            read.append(charge)
            yield charge

    lines = bill_csv(charges())
    next(lines)
    next(lines)
    assert len(read) == 1
