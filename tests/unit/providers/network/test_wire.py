import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from pydantic import ValidationError

from providers.network import wire, wire_records

TERM = {"start": "2026-03-01T12:00:00Z", "end": "2026-03-02T12:00:00+00:00"}


def test_amounts_are_text_both_ways() -> None:
    price = wire.WireMoney.model_validate_json('{"amount": "0.0000000010", "currency": "USD"}')
    assert price.amount == Decimal("1E-9")
    assert json.loads(price.model_dump_json()) == {"amount": "0.0000000010", "currency": "USD"}


@pytest.mark.parametrize("amount", ["1.5", '"NaN"', '"Infinity"', '"cheap"', "null", "true"])
def test_what_is_no_amount(amount: str) -> None:
    with pytest.raises(ValidationError):
        wire.WireMoney.model_validate_json(f'{{"amount": {amount}, "currency": "USD"}}')


@pytest.mark.parametrize("currency", ["usd", "US", "DOLLAR", ""])
def test_what_is_no_currency(currency: str) -> None:
    with pytest.raises(ValidationError):
        wire.WireMoney.model_validate({"amount": "1", "currency": currency})


def test_times_are_aware_and_text() -> None:
    assert wire.WireTerm.model_validate(TERM).end == datetime(2026, 3, 2, 12, tzinfo=UTC)
    for bad in ("2026-03-01T12:00:00", 1772366400, "soon"):
        with pytest.raises(ValidationError):
            wire.WireTerm.model_validate({**TERM, "start": bad})


@pytest.mark.parametrize(
    "change",
    [{"quantity": 0}, {"quantity": -1}, {"quantity": "2"}, {"quantity": 10**9}, {"offer_id": ""}, {"surprise": 1}],
)
def test_a_request_that_is_not_well_formed(change: dict[str, object]) -> None:
    good = {"offer_id": "a", "quantity": 1, "term": TERM}
    assert wire.QuoteRequest.model_validate(good).quantity == 1
    with pytest.raises(ValidationError):
        wire.QuoteRequest.model_validate({**good, **change})


def test_an_answer_may_carry_more_than_we_know() -> None:
    event = wire_records.EVENT.validate_python(
        {
            "type": "reclaim",
            "event_id": 1,
            "at": TERM["start"],
            "reservation_id": "r",
            "node": "n",
            "reclaim_at": TERM["end"],
            "reason": "x",
            "colour": "red",
        }
    )
    assert isinstance(event, wire_records.ReclaimEvent)


def test_focus_rows_are_spelled_as_the_standard_does() -> None:
    aliases = {field.alias for field in wire_records.FocusRow.model_fields.values()}
    assert {"BilledCost", "ChargePeriodStart", "InvoiceIssuerName", "SkuId", "Tags"} <= aliases


def test_user_data_is_not_in_the_repr() -> None:
    assert "secret" not in repr(wire.ConfirmRequest(node="n", token="t", user_data="secret"))
