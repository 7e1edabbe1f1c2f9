"""Facts as text."""

from datetime import UTC, datetime

import pytest

from engine.model.money import Money, usd
from engine.web.rendering import invoiced, milliseconds, money, percent, size, when


@pytest.mark.parametrize(
    ("amount", "places", "shown"),
    [("1234.56789", 4, "1,234.5679"), ("-0.00001", 4, "0.0000"), ("-0.02", 6, "-0.020000"), ("0", 2, "0.00")],
)
def test_money(amount: str, places: int, shown: str) -> None:
    assert money(usd(amount), places) == f'{shown} <span class="unit">USD</span>'


def test_an_invoice_is_shown_in_its_currencys_minor_unit() -> None:
    assert invoiced(usd("10.5")).startswith("10.50 ")
    assert invoiced(Money(amount=usd("1200").amount, currency="JPY")).startswith("1,200 ")


def test_sizes_shares_and_durations() -> None:
    assert [size(n) for n in (0, 1023, 1024, 134_217_728, 5 * 2**30)] == [
        "0 B",
        "1023 B",
        "1 KiB",
        "128 MiB",
        "5 GiB",
    ]
    assert percent(0.0314) == "3.1 %"
    assert milliseconds(1.2345) == "1,234 ms"


def test_a_moment() -> None:
    moment = datetime(2026, 11, 23, 1, 2, 3, tzinfo=UTC)
    shown = "<span>2026-11-23</span> <span>01:02:03 UTC</span>"
    assert when(moment) == f'<time datetime="2026-11-23T01:02:03Z">{shown}</time>'
