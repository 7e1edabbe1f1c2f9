"""Does the ledger say what the invoices say? Pure: charges and invoices in, one verdict per invoice out."""

from collections import defaultdict
from collections.abc import Iterable
from decimal import Decimal

from engine.errors import BillDoesNotReconcile
from engine.model.billing import Charge, Invoice
from engine.model.money import Money
from engine.model.value import Value


class InvoiceVerdict(Value):
    """``difference`` = rows - invoice, exact; reconciled only at zero after rounding to the currency's minor unit."""

    provider: str
    invoice: Invoice
    rows: int
    rows_total: Money
    difference: Money

    @property
    def reconciled(self) -> bool:
        return self.difference.to_minor_units().amount == 0


class Reconciliation(Value):
    verdicts: tuple[InvoiceVerdict, ...]

    @property
    def reconciled(self) -> bool:
        return all(verdict.reconciled for verdict in self.verdicts)

    @property
    def invoiced(self) -> Money:
        """The sum of the invoices; raises ValueError where they are in several currencies."""
        return Money.total((verdict.invoice.total for verdict in self.verdicts), self._currency())

    @property
    def ledger(self) -> Money:
        return Money.total((verdict.rows_total for verdict in self.verdicts), self._currency())

    def _currency(self) -> str:
        return self.verdicts[0].invoice.total.currency if self.verdicts else "USD"

    def require(self) -> None:
        """Raises BillDoesNotReconcile naming each invoice that is off, and by how much."""
        off = [verdict for verdict in self.verdicts if not verdict.reconciled]
        if off:
            raise BillDoesNotReconcile(
                "; ".join(
                    f"{verdict.provider} invoice {verdict.invoice.invoice_id}: rows {verdict.rows_total}, "
                    f"invoice {verdict.invoice.total}, off by {verdict.difference}"
                    for verdict in off
                ),
                why="the bill's rows do not add up to what the issuer asks for",
                next_step="shardwright bills fetch, then shardwright bills report",
            )


def reconcile(invoices: Iterable[tuple[str, Invoice]], charges: Iterable[Charge]) -> Reconciliation:
    """Rows are matched by (issuer, invoice id); the currency must be the invoice's."""
    totals: dict[tuple[str, str | None], Decimal] = defaultdict(Decimal)
    counts: dict[tuple[str, str | None], int] = defaultdict(int)
    currencies: dict[tuple[str, str | None], set[str]] = defaultdict(set)
    for charge in charges:
        key = (charge.invoice_issuer_name, charge.invoice_id)
        totals[key] += charge.billed_cost
        counts[key] += 1
        currencies[key].add(charge.billing_currency)
    verdicts = []
    for provider, invoice in invoices:
        key = (invoice.issuer, invoice.invoice_id)
        foreign = currencies[key] - {invoice.total.currency}
        if foreign:
            raise BillDoesNotReconcile(
                f"{provider} invoice {invoice.invoice_id}: rows in {', '.join(sorted(foreign))}",
                why=f"the invoice is in {invoice.total.currency}",
            )
        rows_total = Money(amount=totals[key], currency=invoice.total.currency)
        verdicts.append(
            InvoiceVerdict(
                provider=provider,
                invoice=invoice,
                rows=counts[key],
                rows_total=rows_total,
                difference=rows_total - invoice.total,
            )
        )
    return Reconciliation(verdicts=tuple(verdicts))
