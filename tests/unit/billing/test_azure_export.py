from decimal import Decimal

import pytest

from engine.billing.base import ingest
from engine.errors import ProviderAnswerInvalid
from engine.model.billing import BillFormat, ChargeCategory

HEADER = (
    "invoiceId,BillingAccountId,SubscriptionId,billingPeriodStartDate,billingPeriodEndDate,date,productName,"
    "meterCategory,meterId,quantity,unitOfMeasure,costInBillingCurrency,billingCurrency,PayGPrice,unitPrice,"
    "chargeType,pricingModel,resourceLocation,ResourceId,tags\n"
)


def line(charge: str, model: str, cost: str, tags: str = "", date: str = "11/23/2026") -> str:
    return (
        f"inv-1,42,sub,11/01/2026,11/30/2026,{date},D2s v5,Virtual Machines,meter,2,1 Hour,{cost},USD,0.096,0.096,"
        f"{charge},{model},eastus,/vm/1,{tags}\n"
    )


def test_usage_spot_and_rounding(deliver) -> None:
    tags = '"""shardwright-node"": ""node-1"""'
    text = HEADER + line("Usage", "OnDemand", "0.192", tags) + line("Usage", "Spot", "0.04")
    text += line("RoundingAdjustment", "", "-0.002")
    usage, spot, rounding = ingest(deliver(text, BillFormat.AZURE_COST_EXPORT))
    assert (usage.billed_cost, usage.list_cost, usage.pricing_category) == (
        Decimal("0.192"),
        Decimal("0.192"),
        "Standard",
    )
    assert usage.tags == (("shardwright-node", "node-1"),), "the export leaves the braces out"
    assert spot.pricing_category == "Dynamic"
    assert (rounding.charge_category, rounding.billed_cost) == (ChargeCategory.ADJUSTMENT, Decimal("-0.002"))
    assert usage.charge_period.hours == 24


def test_a_date_that_is_none_names_the_row(deliver) -> None:
    with pytest.raises(ProviderAnswerInvalid, match=r"row 1, date: 'soon' is not a time"):
        ingest(deliver(HEADER + line("Usage", "Spot", "1", date="soon"), BillFormat.AZURE_COST_EXPORT))


@pytest.mark.parametrize(
    ("sound", "broken"), [(",USD,", ",usd,"), (",2,", ",1E+999999,"), ("11/23/2026", "12/31/9999")]
)
def test_a_row_that_makes_no_charge_is_named(deliver, sound: str, broken: str) -> None:
    text = HEADER + line("Usage", "Spot", "1") + line("Usage", "Spot", "1").replace(sound, broken)
    with pytest.raises(ProviderAnswerInvalid, match="shop bill inv-1, row 2 cannot be read"):
        ingest(deliver(text, BillFormat.AZURE_COST_EXPORT))
