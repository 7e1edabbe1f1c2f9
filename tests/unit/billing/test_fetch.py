from collections.abc import Callable
from typing import cast

import pytest

from engine.billing.fetch import fetch
from engine.model.billing import BillDelivery, BillFormat
from engine.model.value import Interval
from engine.store.database import Database
from engine.store.ledger import SqlLedger
from providers.base import Provider
from tests.unit.billing.conftest import PERIOD
from tests.unit.billing.test_focus import HEADER, line


class Network:
    """Delivers one bill."""

    def __init__(self, delivery: BillDelivery) -> None:
        self._delivery = delivery

    def bill(self, period: Interval) -> BillDelivery:
        return self._delivery


@pytest.mark.parametrize(
    ("sound", "broken"),
    [('"{""shardwright-node"": ""n1""}"', "[]"), ("USD", "usd"), ("1,USD", "1E+99999,USD"), ("tenant", "")],
)
def test_a_malformed_bill_is_named_and_the_next_is_fetched(
    deliver: Callable[..., BillDelivery], database: Database, sound: str, broken: str
) -> None:
    text = HEADER + line("1")
    bad, good = (deliver(content, BillFormat.FOCUS) for content in (text.replace(sound, broken), text))
    networks = cast(dict[str, Provider], {"mallory": Network(bad), "shop": Network(good)})
    fetched = fetch(networks, SqlLedger(database), PERIOD)
    assert fetched.delivered == ("shop",)
    ((name, why),) = fetched.failures
    assert name == "mallory"
    assert "row 1" in why
