from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from engine.billing.base import ingest
from engine.billing.report import ROUNDING, UNALLOCATED, cost_report, split
from engine.billing.sums import sums_of
from engine.model.billing import BillFormat
from engine.model.ids import NodeId
from engine.model.money import Money, usd

HEADER = (
    "BilledCost,BillingCurrency,BillingAccountId,BillingPeriodStart,BillingPeriodEnd,ChargePeriodStart,"
    "ChargePeriodEnd,ChargeCategory,ChargeDescription,ProviderName,ServiceName,Tags\n"
)
TIMES = "2026-11-01T00:00:00Z,2026-12-01T00:00:00Z,2026-11-23T10:00:00Z,2026-11-23T11:00:00Z"


def line(cost: str, node: str, category: str = "Usage") -> str:
    return f'{cost},USD,t,{TIMES},{category},a unit,harbor,capacity,"{{""shardwright-node"": ""{node}""}}"\n'


def test_a_nodes_cost_is_split_over_its_workloads_and_nothing_is_lost(deliver) -> None:
    text = HEADER + line("1", "n1") + line("0.5", "n2") + line("-0.004", "", "Adjustment")
    sums = sums_of("shop", ingest(deliver(text, BillFormat.FOCUS)))
    report = cost_report(sums, {NodeId("n1"): (("shop/web", 2), ("shop/batch", 1))})
    found = {line.workload: line.billed.amount for line in report.lines}
    assert found == {
        "shop/web": Decimal("0.666666666667"),
        "shop/batch": Decimal("0.333333333333"),
        UNALLOCATED: Decimal("0.5"),
        ROUNDING: Decimal("-0.004"),
    }
    assert report.totals == (usd("1.496"),)
    assert report.by_provider == (("harbor", usd("1.496")),)


def test_each_currency_has_lines_and_totals_of_its_own(deliver) -> None:
    text = HEADER + line("1", "n1") + line("7", "n1").replace("USD", "EUR") + line("2", "n1")
    report = cost_report(sums_of("shop", ingest(deliver(text, BillFormat.FOCUS))), {NodeId("n1"): (("shop/web", 1),)})
    euros = Money(amount=Decimal(7), currency="EUR")
    assert [(line.workload, line.billed, line.rows) for line in report.lines] == [
        ("shop/web", euros, 1),
        ("shop/web", usd("3"), 2),
    ]
    assert report.totals == (euros, usd("3"))
    assert report.by_provider == (("harbor", euros), ("harbor", usd("3")))


def test_no_sum_of_rows_is_too_large_to_be_told(deliver) -> None:
    """Each is within what a charge may say; their sum needs more digits than a Decimal has unasked."""
    rows = [line("999999999999999.000000000001", "n1") for _ in range(20)]
    sums = sums_of("shop", ingest(deliver(HEADER + "".join(rows), BillFormat.FOCUS)))
    (one,) = cost_report(sums, {}).lines
    assert one.billed.amount == Decimal("19999999999999980.00000000002")


@given(
    st.decimals(min_value=-10_000, max_value=10_000, places=18),
    st.lists(st.integers(min_value=1, max_value=1000), min_size=1, max_size=9),
)
def test_the_parts_are_the_whole(amount: Decimal, weights: list[int]) -> None:
    assert sum(split(amount, weights)) == amount
