"""Does the ledger say what the invoices say? Pure: sums of charges and invoices in, one verdict per invoice out."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from engine.errors import BillDoesNotReconcile
from engine.model.billing import ChargeSum, Invoice
from engine.model.money import Money
from engine.model.value import Value


class InvoiceVerdict(Value):
    """``difference`` = rows in the invoice's currency - invoice, exact."""

    provider: str
    invoice: Invoice
    rows: int
    rows_total: Money
    difference: Money
    foreign: tuple[Money, ...] = ()
    """What its rows in other currencies come to: nobody asks for that on this invoice."""

    @property
    def off_by(self) -> tuple[Money, ...]:
        """What does not add up, to the currency's minor unit; empty where the invoice is reconciled."""
        off = self.difference.to_minor_units().amount != 0
        return ((self.difference,) if off else ()) + self.foreign

    @property
    def reconciled(self) -> bool:
        return not self.off_by


class Reconciliation(Value):
    verdicts: tuple[InvoiceVerdict, ...]

    @property
    def reconciled(self) -> bool:
        return all(verdict.reconciled for verdict in self.verdicts)

    @property
    def invoiced(self) -> tuple[Money, ...]:
        """What the invoices ask for, one sum per currency."""
        return Money.totals(verdict.invoice.total for verdict in self.verdicts)

    @property
    def ledger(self) -> tuple[Money, ...]:
        return Money.totals(total for verdict in self.verdicts for total in (verdict.rows_total, *verdict.foreign))

    def require(self) -> None:
        """Raises BillDoesNotReconcile naming each invoice that is off, and by how much."""
        off = [verdict for verdict in self.verdicts if not verdict.reconciled]
        if off:
            raise BillDoesNotReconcile(
                "; ".join(
                    f"{verdict.provider} invoice {verdict.invoice.invoice_id}: "
                    f"rows {' and '.join(map(str, (verdict.rows_total, *verdict.foreign)))}, "
                    f"invoice {verdict.invoice.total}, off by {' and '.join(map(str, verdict.off_by))}"
                    for verdict in off
                ),
                why="the bill's rows do not add up to what the issuer asks for",
                next_step="shardwright bills fetch, then shardwright bills report",
            )


def reconcile(invoices: Iterable[tuple[str, Invoice]], sums: Iterable[ChargeSum]) -> Reconciliation:
    """Rows are matched by who delivered them, issuer and invoice id: two networks may number their invoices alike."""
    of: dict[tuple[str, str, str | None], list[ChargeSum]] = defaultdict(list)
    for one in sums:
        of[one.delivered_by, one.issuer, one.invoice_id].append(one)
    return Reconciliation(
        verdicts=tuple(
            _verdict(provider, invoice, of[provider, invoice.issuer, invoice.invoice_id])
            for provider, invoice in invoices
        )
    )


def _verdict(provider: str, invoice: Invoice, sums: Sequence[ChargeSum]) -> InvoiceVerdict:
    currency = invoice.total.currency
    totals = {one.currency: one for one in Money.totals(Money(amount=s.billed, currency=s.currency) for s in sums)}
    rows_total = totals.pop(currency, Money.zero(currency))
    return InvoiceVerdict(
        provider=provider,
        invoice=invoice,
        rows=sum(one.rows for one in sums),
        rows_total=rows_total,
        difference=rows_total - invoice.total,
        foreign=tuple(one for one in totals.values() if one.amount != 0),
    )
