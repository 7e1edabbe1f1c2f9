from datetime import datetime, timedelta

import pytest

from engine.clock import ManualClock
from engine.model.value import Interval
from providers.network.records import Hold, Quote, Reclaim, Span, Unit, idle_spans, list_price
from providers.network.stock import Lot
from providers.network.wire import HoldState
from tests.unit.providers.network.networks import START, TENANT, a_listing, a_network, an_auction, quoted

LATER = START + timedelta(hours=1)


def a_hold(**fields: object) -> Hold:
    lot = Lot(a_listing(), [(START, a_listing().ask)])
    quote = Quote(TENANT, lot, quoted(a_network(ManualClock(START)), 3))
    hold = Hold(TENANT, "hold-1", quote, 3, LATER)
    for name, value in fields.items():
        setattr(hold, name, value)
    return hold


@pytest.mark.parametrize(
    ("fields", "now", "state"),
    [
        ({}, START, HoldState.HELD),
        ({}, LATER, HoldState.LAPSED),
        ({"started": 2}, LATER, HoldState.LAPSED),
        ({"started": 3}, LATER, HoldState.HELD),
        ({"paid_at": START}, LATER, HoldState.PAID),
        ({"paid_at": START, "released": True}, START, HoldState.RELEASED),
    ],
)
def test_the_state_of_a_hold(fields: dict[str, object], now: datetime, state: HoldState) -> None:
    assert a_hold(**fields).state(now) is state


def test_paid_units_without_a_node_are_metered() -> None:
    hold = a_hold()
    hold.pay(START)
    hold.start_one(START + timedelta(minutes=1))
    spans = idle_spans(hold, START, LATER)
    assert [(span.end - span.start).total_seconds() for span in spans] == [60, 3600, 3600]
    assert len({span.resource_id for span in spans}) == 3
    hold.release(START + timedelta(minutes=2))
    assert [span.end - span.start for span in idle_spans(hold, START, LATER)] == [
        timedelta(minutes=1),
        timedelta(minutes=2),
        timedelta(minutes=2),
    ]


def test_a_resized_hold_is_metered_for_what_it_had() -> None:
    hold = a_hold()
    hold.pay(START)
    hold.resize(4, START + timedelta(minutes=10))
    hold.resize(2, START + timedelta(minutes=30))
    minutes = [(span.end - span.start).total_seconds() / 60 for span in idle_spans(hold, START, LATER)]
    assert minutes == [30, 30, 60, 50]


def test_a_unit_ends_by_itself_when_it_is_reclaimed() -> None:
    unit = Unit("r", TENANT, "h", a_listing(), "n", "t", "", {}, a_listing().ask, START)
    assert unit.ended_at(LATER) is None
    unit.reclaim = Reclaim(START, LATER, "x")
    assert unit.ended_at(START) is None
    assert unit.ended_at(LATER + timedelta(days=1)) == LATER
    unit.stopped_at = START
    assert unit.ended_at(LATER) == START


def test_a_span_is_cut_to_the_period() -> None:
    span = Span("r", a_listing(), a_listing().ask, a_listing().ask, START, LATER, True)
    assert span.within(Interval(start=START, end=LATER)) == Interval(start=START, end=LATER)
    assert span.within(Interval(start=LATER, end=LATER + timedelta(hours=1))) is None


def test_the_list_price_is_the_ask_when_it_was_sold() -> None:
    ask, paid = a_listing().ask, a_listing().ask / 2
    lot = Lot(a_listing(), [(START, ask), (LATER, ask * 2)])
    assert list_price(lot, paid, START) == ask
    assert list_price(lot, paid, LATER) == ask * 2
    assert list_price(Lot(an_auction(), [(START, ask)]), paid, LATER) == paid
