import pytest

from engine.billing.base import ingest
from engine.billing.reconciliation import reconcile
from engine.billing.sums import sums_of
from engine.errors import BillDoesNotReconcile, ExitCode
from engine.model.billing import BillFormat
from engine.model.money import Money, usd

HEADER = (
    "BilledCost,BillingCurrency,BillingAccountId,BillingPeriodStart,BillingPeriodEnd,ChargePeriodStart,"
    "ChargePeriodEnd,ChargeCategory,ChargeDescription,ProviderName,ServiceName\n"
)
TIMES = "2026-11-01T00:00:00Z,2026-12-01T00:00:00Z,2026-11-23T10:00:00Z,2026-11-23T11:00:00Z"


def bill(deliver, *costs: str, total: str, currency: str = "USD"):
    rows = "".join(f"{cost},{currency},tenant,{TIMES},Usage,a unit,harbor,capacity\n" for cost in costs)
    delivery = deliver(HEADER + rows, BillFormat.FOCUS, total=usd(total))
    return delivery.invoice, sums_of("harbor", ingest(delivery))


def test_rows_that_add_up_to_the_cent_reconcile(deliver) -> None:
    invoice, sums = bill(deliver, "0.01", "0.02", total="0.03")
    result = reconcile([("harbor", invoice)], sums)
    assert result.reconciled
    assert result.ledger == result.invoiced == (usd("0.03"),)
    result.require()


def test_a_cent_off_is_named_and_has_its_own_exit_code(deliver) -> None:
    invoice, sums = bill(deliver, "0.01", "0.03", total="0.03")
    with pytest.raises(
        BillDoesNotReconcile, match=r"inv-1: rows 0.04 USD, invoice 0.03 USD, off by 0.01 USD"
    ) as caught:
        reconcile([("harbor", invoice)], sums).require()
    assert caught.value.exit_code == ExitCode.BILL


def test_an_invoice_without_rows_and_a_foreign_currency_do_not_reconcile(deliver) -> None:
    invoice, _ = bill(deliver, total="0.03")
    assert not reconcile([("harbor", invoice)], []).reconciled
    invoice, sums = bill(deliver, "0.03", total="0.03", currency="EUR")
    with pytest.raises(BillDoesNotReconcile, match=r"rows 0 USD and 0.03 EUR, invoice 0.03 USD, off by .* 0.03 EUR"):
        reconcile([("harbor", invoice)], sums).require()


def test_two_networks_may_number_their_invoices_alike(deliver) -> None:
    invoice, sums = bill(deliver, "0.03", total="0.03")
    other = tuple(one.model_copy(update={"delivered_by": "agora"}) for one in sums)
    found = reconcile([("harbor", invoice), ("agora", invoice)], (*sums, *other))
    assert [(verdict.rows, verdict.reconciled) for verdict in found.verdicts] == [(1, True), (1, True)]


def test_invoices_in_two_currencies_are_two_sums(deliver) -> None:
    invoice, _ = bill(deliver, total="1.10")
    yen = Money(amount=usd("120").amount, currency="JPY")
    others = (
        invoice.model_copy(update={"invoice_id": "2", "total": yen}),
        invoice.model_copy(update={"total": usd("2")}),
    )
    assert reconcile([("harbor", one) for one in (invoice, *others)], ()).invoiced == (yen, usd("3.10"))
