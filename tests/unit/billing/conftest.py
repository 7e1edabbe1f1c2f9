import hashlib
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from engine.model.billing import BillDelivery, BillFormat, Invoice
from engine.model.money import Money, usd
from engine.model.value import Interval

PERIOD = Interval(start=datetime(2026, 11, 1, tzinfo=UTC), end=datetime(2026, 12, 1, tzinfo=UTC))
Deliver = Callable[..., BillDelivery]


@pytest.fixture
def deliver() -> Deliver:
    """A delivery of the given content."""

    def make(
        content: bytes | str, format: BillFormat, *, total: Money | None = None, invoice_id: str = "inv-1"
    ) -> BillDelivery:
        data = content.encode() if isinstance(content, str) else content
        return BillDelivery(
            provider="shop",
            format=format,
            content_type="text/csv",
            content=data,
            sha256=hashlib.sha256(data).hexdigest(),
            invoice=Invoice(issuer="Issuer", invoice_id=invoice_id, billing_period=PERIOD, total=total or usd("0.03")),
            delivered_at=PERIOD.end,
        )

    return make
