import gzip
from decimal import Decimal

import pytest

from engine.billing.base import ingest
from engine.errors import ProviderAnswerInvalid
from engine.model.billing import BillFormat, ChargeCategory

HEADER = (
    "identity/LineItemId,bill/InvoiceId,bill/PayerAccountId,bill/BillingPeriodStartDate,bill/BillingPeriodEndDate,"
    "lineItem/UsageAccountId,lineItem/LineItemType,lineItem/UsageStartDate,lineItem/UsageEndDate,lineItem/ProductCode,"
    "lineItem/UsageType,lineItem/AvailabilityZone,lineItem/UsageAmount,lineItem/CurrencyCode,lineItem/UnblendedRate,"
    "lineItem/UnblendedCost,lineItem/LineItemDescription,lineItem/ResourceId,pricing/publicOnDemandCost,pricing/unit,"
    "product/regionCode,resourceTags/user:shardwright-node\n"
)
MONTH = "2026-11-01T00:00:00Z,2026-12-01T00:00:00Z"
HOUR = "2026-11-23T10:00:00Z,2026-11-23T11:00:00Z"


def line(kind: str, usage: str, cost: str, *, public: str = "") -> str:
    return (
        f"id,inv-1,012345678901,{MONTH},012345678901,{kind},{HOUR},AmazonEC2,{usage},us-east-1a,1,USD,0.1,"
        f"{cost},m5.large,i-1,{public},Hrs,us-east-1,node-1\n"
    )


def test_on_demand_spot_and_rounding_lines(deliver) -> None:
    text = HEADER + line("Usage", "BoxUsage:m5.large", "0.096", public="0.096")
    text += line("Usage", "SpotUsage:m5.large", "0.0312", public="0.096")
    text += line("Fee", "Rounding", "0.0028")
    usage, spot, rounding = ingest(deliver(text, BillFormat.AWS_CUR))
    assert (usage.billed_cost, usage.pricing_category, usage.charge_category) == (
        Decimal("0.096"),
        "Standard",
        ChargeCategory.USAGE,
    )
    assert (spot.pricing_category, spot.list_cost) == ("Dynamic", Decimal("0.096"))
    assert rounding.charge_category is ChargeCategory.ADJUSTMENT
    assert usage.billing_account_id == "012345678901", "an account id keeps its leading zero"
    assert ("shardwright-node", "node-1") in usage.tags
    assert len({usage.charge_id, spot.charge_id, rounding.charge_id}) == 3


def test_a_row_that_makes_no_charge_is_named(deliver) -> None:
    good = line("Usage", "BoxUsage:m5.large", "0.1")
    with pytest.raises(ProviderAnswerInvalid, match=r"shop bill inv-1, row 2 cannot be read; billing_currency"):
        ingest(deliver(HEADER + good + good.replace("USD", "usd"), BillFormat.AWS_CUR))


def test_gzip_is_unpacked_and_torn_gzip_is_named(deliver) -> None:
    packed = gzip.compress((HEADER + line("Usage", "BoxUsage:m5.large", "0.1")).encode())
    assert len(ingest(deliver(packed, BillFormat.AWS_CUR))) == 1
    with pytest.raises(ProviderAnswerInvalid, match="cannot be read"):
        ingest(deliver(packed[:40], BillFormat.AWS_CUR))
    with pytest.raises(ProviderAnswerInvalid, match="cannot be read"):
        ingest(deliver(packed[:10] + b"\xff" * 9 + packed[19:], BillFormat.AWS_CUR))


@pytest.mark.parametrize("cost", ["", "free", "NaN"])
def test_a_cost_that_is_no_number_names_row_and_column(deliver, cost: str) -> None:
    text = HEADER + line("Usage", "BoxUsage:m5.large", "0.1") + line("Usage", "BoxUsage:m5.large", cost)
    with pytest.raises(ProviderAnswerInvalid, match=r"row 2, lineItem/UnblendedCost"):
        ingest(deliver(text, BillFormat.AWS_CUR))


def test_another_format_is_refused(deliver) -> None:
    with pytest.raises(ProviderAnswerInvalid, match="lacks the columns"):
        ingest(deliver("<html>It works!</html>", BillFormat.AWS_CUR))


COMMITMENT_COLUMNS = (
    "savingsPlan/SavingsPlanEffectiveCost,savingsPlan/TotalCommitmentToDate,savingsPlan/UsedCommitment,"
    "reservation/EffectiveCost,reservation/ReservationARN,reservation/UnusedAmortizedUpfrontFeeForBillingPeriod,"
    "reservation/UnusedRecurringFee"
)


def committed(
    kind: str, cost: str, *, plan: str = "0", committed: str = "0", used: str = "0", reservation: str = ",,,"
) -> str:
    """Columns of savings plans are 0 where they do not apply, as AWS writes them."""
    return f"{line(kind, 'x', cost).strip()},{plan},{committed},{used},{reservation}\n"


SAVINGS_PLAN = committed("SavingsPlanCoveredUsage", "100", plan="72") + committed("SavingsPlanNegation", "-100")
RESERVED = committed("DiscountedUsage", "0", reservation="60,arn,,")


@pytest.mark.parametrize(
    ("rows", "billed", "effective"),
    [
        (SAVINGS_PLAN + committed("SavingsPlanRecurringFee", "72", committed="72", used="72"), "72", ["72", "0", "0"]),
        (
            SAVINGS_PLAN + committed("SavingsPlanRecurringFee", "90", committed="90", used="72"),
            "90",
            ["72", "0", "0", "18"],
        ),
        (SAVINGS_PLAN + committed("SavingsPlanUpfrontFee", "26280"), "26280", ["72", "0", "0"]),
        (RESERVED + committed("RIFee", "60", reservation=",arn,0,0"), "60", ["60", "0"]),
        (RESERVED + committed("RIFee", "65", reservation=",arn,20,15"), "65", ["60", "0", "35"]),
        (RESERVED + committed("Fee", "720", reservation=",arn,,"), "720", ["60", "0"]),
        (committed("Fee", "5") + committed("Usage", "1"), "6", ["5", "1"]),
    ],
    ids=["plan", "plan partly used", "plan upfront", "reserved", "reserved partly used", "upfront", "other"],
)
def test_a_commitment_costs_where_it_was_used(deliver, rows: str, billed: str, effective: list[str]) -> None:
    charges = ingest(deliver(f"{HEADER.strip()},{COMMITMENT_COLUMNS}\n{rows}", BillFormat.AWS_CUR))
    assert sum(charge.billed_cost for charge in charges) == Decimal(billed)
    assert [charge.effective_cost for charge in charges] == [Decimal(cost) for cost in effective]
    purchases = [charge for charge in charges if charge.charge_category is ChargeCategory.PURCHASE]
    assert {charge.effective_cost for charge in purchases} <= {Decimal(0), Decimal(5)}
    assert len({charge.charge_id for charge in charges}) == len(charges)
