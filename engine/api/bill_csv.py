"""The merged bill as CSV text with the FOCUS columns, row by row, so that its size does not matter."""

import csv
import io
from collections.abc import Iterable, Iterator
from datetime import datetime
from decimal import Decimal

from engine.billing.focus import COLUMNS, focus_row
from engine.model.billing import Charge


def bill_csv(charges: Iterable[Charge]) -> Iterator[str]:
    """The header, then one line per charge; costs are exact text, times ISO 8601 UTC."""
    line = io.StringIO()
    writer = csv.writer(line)
    writer.writerow(COLUMNS)
    yield line.getvalue()
    for charge in charges:
        line.seek(0)
        line.truncate()
        writer.writerow(_as_text(value) for value in focus_row(charge).values())
        yield line.getvalue()


def _as_text(value: Decimal | str | datetime | None) -> str:
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%SZ")
    return value or ""
