"""From an issuer's own bill format to FOCUS charges: one ingester per format, found by name."""

from collections.abc import Iterable, Iterator
from importlib import import_module
from typing import Protocol, cast

from engine.errors import ProviderAnswerInvalid
from engine.model.billing import BillDelivery, BillFormat, Charge, ChargeSum, Invoice


class Ingester(Protocol):
    def __call__(self, delivery: BillDelivery) -> Iterable[Charge]:
        """Every row of the delivery as a charge. Raises ProviderAnswerInvalid naming the row that cannot be read."""
        ...


class Ledger(Protocol):
    """Append-only; a correction is a new charge."""

    def append(self, delivery: BillDelivery, rows: Iterable[Charge]) -> bool: ...

    def invoices(self) -> Iterable[tuple[str, Invoice]]: ...

    def charges(self, *, provider: str | None = None) -> Iterator[Charge]: ...

    def sums(self) -> Iterable[ChargeSum]:
        """What the charges come to: reports need no more."""
        ...


_INGESTERS = {
    BillFormat.AWS_CUR: "engine.billing.aws_cur:ingest",
    BillFormat.GCP_BILLING_EXPORT: "engine.billing.gcp_export:ingest",
    BillFormat.AZURE_COST_EXPORT: "engine.billing.azure_export:ingest",
    BillFormat.FOCUS: "engine.billing.focus:ingest",
}


def ingest(delivery: BillDelivery) -> tuple[Charge, ...]:
    """The delivery's rows as charges. Raises ProviderAnswerInvalid when it is not what its format promises."""
    path = _INGESTERS.get(delivery.format)
    if path is None:
        raise ProviderAnswerInvalid(f"{delivery.provider}: no ingester for bill format {delivery.format!r}")
    module, _, name = path.partition(":")
    return tuple(cast(Ingester, getattr(import_module(module), name))(delivery))
