"""The ledger: charges as FOCUS rows, append-only, and the deliveries they came from."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal

from sqlalchemy import (
    Boolean,
    Column,
    ColumnElement,
    Connection,
    ForeignKey,
    Integer,
    RowMapping,
    ScalarSelect,
    String,
    Table,
    Text,
    func,
    insert,
    select,
    union_all,
)

from engine.billing.sums import sums_of
from engine.model.billing import BillDelivery, Charge, ChargeSum, Invoice
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
)

further_invoices = Table(
    "further_invoices",
    metadata,
    Column("delivery", Integer, ForeignKey("bill_deliveries.id"), primary_key=True),
    Column("invoice_id", String(128), primary_key=True),
    Column("total", DecimalText, nullable=False),
    Column("currency", String(3), nullable=False),
)

charges = Table(
    "charges",
    metadata,
    Column("delivery", Integer, ForeignKey("bill_deliveries.id"), primary_key=True),
    Column("charge_id", String(256), primary_key=True),
    Column("document", Text, nullable=False),
)

charge_sums = Table(
    "charge_sums",
    metadata,
    Column("delivery", Integer, ForeignKey("bill_deliveries.id"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("issuer", Text, nullable=False),
    Column("invoice_id", Text),
    Column("provider_name", Text, nullable=False),
    Column("currency", String(3), nullable=False),
    Column("node", Text, nullable=False),
    Column("adjustment", Boolean, nullable=False),
    Column("billed", Text, nullable=False),
    Column("effective", Text, nullable=False),
    Column("list_cost", Text, nullable=False),
    Column("rows", Integer, nullable=False),
)
"""What a delivery's charges come to: some hundred rows where those are some hundred thousand."""

_PAGE = 2000
"""Charges that are read at once."""


class SqlLedger:
    """A delivery is a snapshot of one (issuer, billing period); the newest one counts, older ones stay for the record.

    Appending again what the newest one says (same bytes, invoices and charges) changes nothing; a corrected total, or a
    return to what an older one said, is a new delivery.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(self, delivery: BillDelivery, rows: Iterable[Charge]) -> bool:
        """True if the delivery was new."""
        invoice = delivery.invoice
        kept = {row.charge_id: row for row in rows}
        documents = {charge_id: row.model_dump_json() for charge_id, row in kept.items()}
        sums = sums_of(delivery.provider, kept.values())
        with self._database.transaction() as connection:
            if _says_the_same(connection, delivery, documents):
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
            if delivery.further_invoices:
                connection.execute(
                    insert(further_invoices),
                    [
                        {
                            "delivery": number,
                            "invoice_id": further.invoice_id,
                            "total": further.total.amount,
                            "currency": further.total.currency,
                        }
                        for further in delivery.further_invoices
                    ],
                )
            if documents:
                connection.execute(
                    insert(charges),
                    [
                        {"delivery": number, "charge_id": charge_id, "document": document}
                        for charge_id, document in documents.items()
                    ],
                )
                connection.execute(insert(charge_sums), [_sum_row(number, *place) for place in enumerate(sums)])
        return True

    def invoices(self) -> Sequence[tuple[str, Invoice]]:
        """(provider, invoice) of every billing period's newest delivery, by provider and invoice."""
        with self._database.reading() as connection:
            found = _invoices(connection, _newest())
        return sorted(found, key=lambda pair: (pair[0], pair[1].invoice_id))

    def sums(self) -> tuple[ChargeSum, ...]:
        """Of the newest delivery of every billing period, by provider."""
        query = (
            select(deliveries.c.provider, charge_sums)
            .join(deliveries, deliveries.c.id == charge_sums.c.delivery)
            .where(deliveries.c.id.in_(_newest()))
            .order_by(deliveries.c.provider, charge_sums.c.delivery, charge_sums.c.number)
        )
        with self._database.reading() as connection:
            return tuple(_read_sum(row) for row in connection.execute(query).mappings())

    def charges(self, *, provider: str | None = None) -> Iterator[Charge]:
        """Of the newest delivery of every billing period when the first is asked for; by provider, period and id.

        They are read a page at a time: no transaction lasts for as long as somebody takes to use them all.
        """
        query = select(deliveries.c.id).where(deliveries.c.id.in_(_newest()))
        if provider is not None:
            query = query.where(deliveries.c.provider == provider)
        order = (deliveries.c.provider, deliveries.c.period_start, deliveries.c.id)
        with self._database.reading() as connection:
            numbers = connection.execute(query.order_by(*order)).scalars().all()
        for number in numbers:
            yield from self._charges_of(number)

    def _charges_of(self, delivery: int) -> Iterator[Charge]:
        after = ""
        while True:
            query = select(charges.c.charge_id, charges.c.document)
            query = query.where(charges.c.delivery == delivery, charges.c.charge_id > after)
            with self._database.reading() as connection:
                page = connection.execute(query.order_by(charges.c.charge_id).limit(_PAGE)).all()
            for row in page:
                yield Charge.model_validate_json(row.document)
            if len(page) < _PAGE:
                return
            after = page[-1].charge_id


def _newest(*of: ColumnElement[bool]) -> ScalarSelect[int]:
    """Of every snapshot, or of those that ``of`` says.

    An open period is delivered again and again, often under a new invoice id each time: its start tells it apart."""
    snapshot = (deliveries.c.provider, deliveries.c.issuer, deliveries.c.period_start)
    return select(func.max(deliveries.c.id)).where(*of).group_by(*snapshot).scalar_subquery()


def _invoices(connection: Connection, chosen: ScalarSelect[int]) -> Sequence[tuple[str, Invoice]]:
    """(provider, invoice): every invoice of the chosen deliveries."""
    shared = (deliveries.c.provider, deliveries.c.issuer, deliveries.c.period_start, deliveries.c.period_end)
    first = select(*shared, deliveries.c.invoice_id, deliveries.c.total, deliveries.c.currency)
    of_further = (further_invoices.c.invoice_id, further_invoices.c.total, further_invoices.c.currency)
    further = select(*shared, *of_further).join(further_invoices, further_invoices.c.delivery == deliveries.c.id)
    both = union_all(*(query.where(deliveries.c.id.in_(chosen)) for query in (first, further)))
    return [
        (
            str(row["provider"]),
            Invoice(
                issuer=row["issuer"],
                invoice_id=row["invoice_id"],
                billing_period=Interval(start=row["period_start"], end=row["period_end"]),
                total=Money(amount=row["total"], currency=row["currency"]),
            ),
        )
        for row in connection.execute(both).mappings()
    ]


def _says_the_same(connection: Connection, delivery: BillDelivery, documents: Mapping[str, str]) -> bool:
    """Whether the newest delivery of the same snapshot has the same content, invoices and charges.

    Charges differ where the same content is read better now than it was then.
    """
    newest = _newest(
        deliveries.c.provider == delivery.provider,
        deliveries.c.issuer == delivery.invoice.issuer,
        deliveries.c.period_start == delivery.invoice.billing_period.start,
    )
    content = connection.execute(select(deliveries.c.sha256).where(deliveries.c.id == newest)).scalar()
    if content != delivery.sha256:
        return False
    if {invoice for _, invoice in _invoices(connection, newest)} != set(delivery.invoices):
        return False
    known = connection.execute(select(charges.c.charge_id, charges.c.document).where(charges.c.delivery == newest))
    return {row.charge_id: row.document for row in known} == documents


def _sum_row(delivery: int, number: int, one: ChargeSum) -> dict[str, object]:
    row = one.model_dump(exclude={"delivered_by"})
    return {**row, **{cost: str(row[cost]) for cost in _COSTS}, "delivery": delivery, "number": number}


def _read_sum(row: RowMapping) -> ChargeSum:
    values = {name: row[name] for name in ChargeSum.model_fields if name != "delivered_by"}
    return ChargeSum(**{**values, **{cost: Decimal(row[cost]) for cost in _COSTS}}, delivered_by=row["provider"])


_COSTS = ("billed", "effective", "list_cost")
