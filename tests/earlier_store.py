"""A control store as an earlier version left it, with bills in its ledger."""

from datetime import UTC, datetime
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import text

import engine.store.migrate as migrate
from engine.billing.sums import sums_of
from engine.model.billing import Charge, ChargeCategory
from engine.model.money import usd
from engine.model.value import Interval
from engine.store.database import Database
from engine.store.ledger import SqlLedger

MONTH = Interval(start=datetime(2026, 11, 1, tzinfo=UTC), end=datetime(2026, 12, 1, tzinfo=UTC))
CHARGE = Charge(
    charge_id="harbor/1/1",
    **dict.fromkeys(("billed_cost", "effective_cost", "list_cost", "contracted_cost"), usd("1").amount),
    billing_currency="USD",
    billing_account_id="t",
    billing_period=MONTH,
    charge_period=MONTH,
    charge_category=ChargeCategory.USAGE,
    charge_description="a unit",
    provider_name="harbor",
    publisher_name="harbor",
    invoice_issuer_name="harbor",
    invoice_id="1",
    service_name="capacity",
)


def scripts() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(migrate.__file__).parent / "migrations"))
    return config


def ledger_outlives_the_upgrade(database: Database) -> None:
    """The last schema of one invoice per delivery; the upgrade keeps its bills, and the same content may come twice."""
    bill = {
        "provider": "harbor",
        "invoice_id": "1",
        "issuer": "harbor",
        "period_start": "2026-11-01 00:00:00",
        "period_end": "2026-12-01 00:00:00",
        "total": "1.00",
        "currency": "USD",
        "format": "focus",
        "sha256": "0" * 64,
        "delivered_at": "2026-12-02 00:00:00",
    }
    insert = f"INSERT INTO bill_deliveries ({', '.join(bill)}) VALUES ({', '.join(f':{name}' for name in bill)})"
    row = {"document": CHARGE.model_dump_json(), "charge_id": CHARGE.charge_id}
    with database.transaction() as connection:
        config = scripts()
        config.attributes["connection"] = connection
        command.upgrade(config, "0009")
        connection.execute(text(insert), bill)
        connection.execute(text("INSERT INTO charges VALUES (1, :charge_id, :document)"), row)
    assert migrate.upgrade(database) is True
    ledger = SqlLedger(database)
    assert [(name, invoice.total) for name, invoice in ledger.invoices()] == [("harbor", usd("1.00"))]
    assert list(ledger.charges()) == [CHARGE]
    assert ledger.sums() == sums_of("harbor", [CHARGE])
    with database.transaction() as connection:
        connection.execute(text(insert), bill)
