from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from pydantic import ValidationError

from engine.clock import ManualClock
from engine.errors import ProviderAnswerInvalid
from engine.model.market import Delivery
from engine.model.money import usd
from providers.base import EventKind
from providers.network import wire
from providers.network.reading import Reading, fault, money
from providers.network.stock import Listing
from providers.network.wire import MeasuredPerformance
from providers.network.wire_records import CapacityEvent, GapEvent, PriceEvent, ReclaimEvent
from tests.unit.providers.network.networks import ANY, START, TENANT, a_listing, a_network, quoted
from tests.unit.providers.network.networks import money as wire_money

READING = Reading("tiny", TENANT)


def _posted(listing: Listing | None = None) -> wire.WireOffer:
    return a_network(ManualClock(START), [listing or a_listing()]).offers(ANY)[0]


def test_ids_carry_the_networks_name_and_groups_never_cross_it() -> None:
    offer = READING.offer(_posted())
    assert (offer.id, offer.provider, offer.account) == ("tiny/lot", "tiny", TENANT)
    assert offer.reliability.correlation_group == "tiny/north/north-a/m"
    assert offer.cell == "tiny/acme/north"
    assert READING.own_id(offer.id) == "lot"


def test_measured_performance_counts_more_than_nominal() -> None:
    slower = MeasuredPerformance(score=0.8, samples=12, measured_at=START)
    assert READING.offer(_posted(replace(a_listing(), measured=slower))).performance == 0.8
    assert READING.offer(_posted()).performance == 1.0


def test_a_delivery_window_is_told_and_one_that_ends_before_it_starts_is_refused() -> None:
    posted = _posted(replace(a_listing(), starts_within=timedelta(hours=3)))
    assert READING.offer(posted).delivery == Delivery(earliest=START, latest=START + timedelta(hours=3))
    window = wire.DeliveryWindow(earliest=START, latest=START - timedelta(hours=1))
    with pytest.raises(ValidationError) as caught:
        READING.offer(posted.model_copy(update={"delivery": window}))
    assert "the delivery ends before it starts" in fault(caught.value)


def test_events_by_kind() -> None:
    price = PriceEvent(event_id=4, at=START, offer_id="lot", price=wire_money("0.06"))
    capacity = CapacityEvent(event_id=5, at=START, offer_id="lot", available=2)
    gap = GapEvent(event_id=6, at=START)
    read = [READING.event(event) for event in (price, capacity, gap)]
    assert [(event.id, event.kind, event.offer, event.notice) for event in read] == [
        ("4", EventKind.PRICE, "tiny/lot", None),
        ("5", EventKind.CAPACITY, "tiny/lot", None),
        ("6", EventKind.GAP, None, None),
    ]


@pytest.mark.parametrize(("said", "reason"), [("", "reclaimed"), ("repair", "repair"), ("x" * 10_000, "x" * 200)])
def test_a_notice_whatever_its_reason(said: str, reason: str) -> None:
    event = READING.event(
        ReclaimEvent(
            event_id=7,
            at=START,
            reservation_id="res-1",
            node="n1",
            reclaim_at=START + timedelta(seconds=30),
            reason=said,
        )
    )
    assert event.notice is not None
    assert (event.kind, event.notice.node, event.notice.provider) == (EventKind.RECLAIM, "n1", "tiny")
    assert (event.notice.notice, event.notice.reason) == (timedelta(seconds=30), reason)


def _more(quote: wire.WireQuote) -> wire.WireQuote:
    return quote.model_copy(update={"quantity": 2})


def _another(quote: wire.WireQuote) -> wire.WireQuote:
    return quote.model_copy(update={"offer_id": "other"})


def _free(quote: wire.WireQuote) -> wire.WireQuote:
    return quote.model_copy(update={"unit_price": wire_money("0")})


@pytest.mark.parametrize(
    ("twist", "said"), [(_more, "the quote is for 2 of lot"), (_another, "1 of other"), (_free, "asks 0 USD")]
)
def test_a_quote_for_something_else(twist: Callable[[wire.WireQuote], wire.WireQuote], said: str) -> None:
    firm, offer = quoted(a_network(ManualClock(START))), READING.offer(_posted())
    quote = READING.quote(firm, offer, 1, strategy="fixed_price")
    assert (quote.id, quote.unit_price, quote.proof) == (f"tiny/{firm.quote_id}", usd("0.05"), firm.proof)
    with pytest.raises(ProviderAnswerInvalid, match=said):
        READING.quote(twist(firm), offer, 1, strategy="fixed_price")


def test_money_keeps_its_currency() -> None:
    assert money(wire_money("0.05", "EUR")).currency == "EUR"
