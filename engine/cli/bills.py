"""``shardwright bills``"""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli.configure import ConfigFile
from engine.cli.console import Output, err, named, out, plain, print_json, table
from engine.errors import ProviderError

if TYPE_CHECKING:
    from rich.table import Table

    from engine.api.view import BillView
    from engine.model.money import Money

app = typer.Typer(help="Fetch, merge and check every provider's bill.", no_args_is_help=True)

OutputOption = Annotated[Output, typer.Option(help="table or json")]
Start = Annotated[datetime | None, typer.Option(help="UTC; default: the first day of the month of --end")]
End = Annotated[datetime | None, typer.Option(help="UTC; default: now")]


@app.command("fetch")
def fetch(config: ConfigFile = None, start: Start = None, end: End = None, output: OutputOption = Output.TABLE) -> None:
    """Fetch each provider's bill into the ledger; exit 6 if one does not reconcile with its invoice."""
    from engine.app.configured import fetch_bills, load, open_store, stored_view

    configuration = load(config)
    with open_store(configuration) as store:
        fetched = fetch_bills(configuration, store, start=start, end=end)
        say = plain(err())
        for provider, failure in fetched.failures:
            say(named(provider, failure))
        bills = stored_view(configuration, store).bills()
    show(bills, output)
    bills.reconciliation.require()
    if fetched.failures:
        raise ProviderError(
            f"no bill from {', '.join(name for name, _ in fetched.failures)}",
            why="; ".join(dict.fromkeys(failure for _, failure in fetched.failures)),
            next_step="shardwright bills fetch, once they deliver: the other bills are in the ledger",
        )


@app.command("report")
def report(config: ConfigFile = None, output: OutputOption = Output.TABLE) -> None:
    """The ledger by provider and workload, and the verdict on each invoice."""
    from engine.app.configured import load, open_store, stored_view

    configuration = load(config)
    with open_store(configuration) as store:
        bills = stored_view(configuration, store).bills()
    show(bills, output)
    bills.reconciliation.require()


@app.command("export")
def export(
    output_file: Annotated[Path, typer.Option(help="FILE.csv or FILE.parquet; its metadata file goes beside it")],
    config: ConfigFile = None,
) -> None:
    """Write the merged bill as one FOCUS file."""
    from engine.app.configured import load, open_store
    from engine.billing.focus import write_focus

    with open_store(load(config)) as store:
        written = write_focus(store.ledger.charges(), output_file)
    err().print(f"{written.rows} charges in {output_file}, described by {written.metadata}")


def show(bills: "BillView", output: Output) -> None:
    if output is Output.JSON:
        print_json("bills", bills)
        return
    for part in bill_tables(bills):
        out().print(part)


def bill_tables(bills: "BillView") -> "tuple[Table, ...]":
    """The costs, a table for each currency; then the invoices."""
    invoices = [
        (
            verdict.provider,
            verdict.invoice.issuer,
            verdict.invoice.invoice_id,
            f"{verdict.invoice.total.amount:.2f} {verdict.invoice.total.currency}",
            f"{verdict.rows_total.amount:.6f}",
            f"OFF by {' and '.join(map(str, verdict.off_by))}" if verdict.off_by else "reconciled",
        )
        for verdict in bills.reconciliation.verdicts
    ]
    columns = ("provider", "issuer", "invoice", "invoice total", "sum of rows", "verdict")
    costs = (_costs(bills, total) for total in bills.report.totals)
    return (*costs, table("Invoices", columns, invoices, right=(3, 4)))


def _costs(bills: "BillView", total: "Money") -> "Table":
    lines = [
        (line.provider, line.workload, f"{line.billed.amount:.6f}", f"{line.list_cost.amount:.6f}", str(line.rows))
        for line in bills.report.lines
        if line.billed.currency == total.currency
    ]
    lines.append(("total", "", f"{total.amount:.2f}", "", ""))
    return table(
        f"Cost by provider and workload ({total.currency})",
        ("provider", "workload", "billed", "list", "rows"),
        lines,
        right=(2, 3, 4),
    )
