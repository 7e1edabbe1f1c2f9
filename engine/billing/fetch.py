"""Fetch every provider's bill into the ledger; one that fails is named and does not stop the others."""

from collections.abc import Mapping

from engine.billing.base import Ledger, ingest
from engine.errors import ShardwrightError
from engine.model.value import Interval, Value
from providers.base import Provider, SupportsBills


class Fetched(Value):
    delivered: tuple[str, ...]
    """Providers whose delivery was new."""
    unchanged: tuple[str, ...]
    failures: tuple[tuple[str, str], ...]
    """(provider, why)"""


def fetch(providers: Mapping[str, Provider], ledger: Ledger, period: Interval) -> Fetched:
    """The newest delivery of each provider for the period; idempotent."""
    delivered: list[str] = []
    unchanged: list[str] = []
    failures: list[tuple[str, str]] = []
    for name, provider in providers.items():
        if not isinstance(provider, SupportsBills):
            failures.append((name, "this kind of provider delivers no bills"))
            continue
        try:
            delivery = provider.bill(period)
            new = ledger.append(delivery, ingest(delivery))
        except ShardwrightError as problem:
            failures.append((name, str(problem)))
            continue
        (delivered if new else unchanged).append(name)
    return Fetched(delivered=tuple(delivered), unchanged=tuple(unchanged), failures=tuple(failures))
