"""The ledger: charges as FOCUS rows, append-only, and the deliveries they came from."""

from collections.abc import Iterable, Sequence

from sqlalchemy import (
    Column,
    ForeignKey,
    Integer,
    ScalarSelect,
    String,
    Table,
    Text,
    UniqueConstraint,
    func,
    insert,
    select,
)

from engine.model.billing import BillDelivery, Charge, Invoice
from engine.model.money import Money
from engine.model.value import Interval
from engine.store.database import Database, DecimalText, UtcDateTime, metadata

deliveries = Table(
    "bill_deliveries",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("provider", String(64), nullable=False),
    Column("invoice_id", String(128), nullable=False),
    Column("issuer", String(128), nullable=False),
    Column("period_start", UtcDateTime, nullable=False),
    Column("period_end", UtcDateTime, nullable=False),
    Column("total", DecimalText, nullable=False),
    Column("currency", String(3), nullable=False),
    Column("format", String(64), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("delivered_at", UtcDateTime, nullable=False),
    UniqueConstraint("provider", "invoice_id", "sha256", name="uq_bill_deliveries_content"),
)

charges = Table(
    "charges",
    metadata,
    Column("delivery", Integer, ForeignKey("bill_deliveries.id"), primary_key=True),
    Column("charge_id", String(256), primary_key=True),
    Column("document", Text, nullable=False),
)


class SqlLedger:
    """A delivery is a snapshot of one (issuer, billing period); the newest one counts, older ones stay for the record.

    Appending the same delivery (same bytes) or the same charge id twice changes nothing.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(self, delivery: BillDelivery, rows: Iterable[Charge]) -> bool:
        """True if the delivery was new."""
        invoice = delivery.invoice
        with self._database.transaction() as connection:
            known = connection.execute(
                select(deliveries.c.id).where(
                    deliveries.c.provider == delivery.provider,
                    deliveries.c.invoice_id == invoice.invoice_id,
                    deliveries.c.sha256 == delivery.sha256,
                )
            ).first()
            if known is not None:
                return False
            number = connection.execute(
                insert(deliveries)
                .values(
                    provider=delivery.provider,
                    invoice_id=invoice.invoice_id,
                    issuer=invoice.issuer,
                    period_start=invoice.billing_period.start,
                    period_end=invoice.billing_period.end,
                    total=invoice.total.amount,
                    currency=invoice.total.currency,
                    format=delivery.format.value,
                    sha256=delivery.sha256,
                    delivered_at=delivery.delivered_at,
                )
                .returning(deliveries.c.id)
            ).scalar_one()
            unique = {row.charge_id: row for row in rows}
            if unique:
                connection.execute(
                    insert(charges),
                    [
                        {"delivery": number, "charge_id": row.charge_id, "document": row.model_dump_json()}
                        for row in unique.values()
                    ],
                )
        return True

    def invoices(self) -> Sequence[tuple[str, Invoice]]:
        """(provider, invoice) of every billing period's newest delivery, by provider and invoice."""
        with self._database.transaction() as connection:
            rows = connection.execute(select(deliveries).where(deliveries.c.id.in_(_newest()))).mappings().all()
        found = [
            (
                str(row["provider"]),
                Invoice(
                    issuer=row["issuer"],
                    invoice_id=row["invoice_id"],
                    billing_period=Interval(start=row["period_start"], end=row["period_end"]),
                    total=Money(amount=row["total"], currency=row["currency"]),
                ),
            )
            for row in rows
        ]
        return sorted(found, key=lambda pair: (pair[0], pair[1].invoice_id))

    def charges(self, *, provider: str | None = None) -> Sequence[Charge]:
        """Of the newest delivery of every billing period, in order of charge id."""
        query = (
            select(charges.c.document)
            .join(deliveries, deliveries.c.id == charges.c.delivery)
            .where(deliveries.c.id.in_(_newest()))
            .order_by(deliveries.c.provider, charges.c.charge_id)
        )
        if provider is not None:
            query = query.where(deliveries.c.provider == provider)
        with self._database.transaction() as connection:
            return [Charge.model_validate_json(document) for document in connection.execute(query).scalars()]


def _newest() -> ScalarSelect[int]:
    """An open period is delivered again and again, often under a new invoice id each time: its start tells it apart."""
    snapshot = (deliveries.c.provider, deliveries.c.issuer, deliveries.c.period_start)
    return select(func.max(deliveries.c.id)).group_by(*snapshot).scalar_subquery()
