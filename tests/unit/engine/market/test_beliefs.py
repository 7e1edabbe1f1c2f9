"""Beliefs put upon offers: what is exhausted is not asked for, and who takes back is less reliable."""

from collections.abc import Sequence
from datetime import timedelta

import pytest

from engine.market.beliefs import Beliefs, as_advertised, beliefs_of, is_exhausted, with_beliefs
from engine.market.discovery import MarketView
from engine.market.observations import Answer, AnswerKind, Stay
from engine.market.scoring import survival
from engine.model.capacity import Resources
from engine.model.ids import NodeId
from engine.model.market import Offer, OwnHistory, Place, PurchaseOption, Reliability
from engine.model.money import usd
from engine.model.placement import Node, NodeState
from engine.model.plan import OfferRejection
from engine.model.value import Interval
from tests.unit.engine.market.counterparties import NOW, a_quote, an_offer

DAY = Interval(start=NOW, end=NOW + timedelta(hours=24))
RELIABILITY = Reliability(correlation_group="g", interruption_per_month=0.1)


def spot(name: str = "s", *, zone: str = "z", available: int | None = 8, kind: str = "t.small") -> Offer:
    return an_offer(
        name, option=PurchaseOption.SPOT, zone=zone, available=available, instance_type=kind, reliability=RELIABILITY
    )


def denied(place: Place, *, held: int = 0, nodes: Sequence[str] = ()) -> Answer:
    return Answer(
        event="create:plan-1:grow", place=place, kind=AnswerKind.CREATE, at=NOW - timedelta(minutes=5), asked=held + 2,
        denied=2, held=held, denied_nodes=tuple(map(NodeId, nodes)),
    )  # fmt: skip


def stay(place: Place, hours: float, *, name: str = "n", reclaimed: bool = False) -> Stay:
    return Stay(
        node=NodeId(name), place=place, correlation_group="g", since=NOW - timedelta(hours=hours), until=NOW,
        reclaimed=reclaimed,
    )  # fmt: skip


def node(name: str, place: Place, state: NodeState = NodeState.JOINED, instance: str | None = "i") -> Node:
    return Node(
        id=NodeId(name), cell=place.cell, zone=place.zone, instance_type=place.instance_type, option=place.option,
        hourly_price=usd("0.1"), resources=Resources(vcpus=2, memory_gib=4), state=state, instance_id=instance,
    )  # fmt: skip


def view_of(*offers: Offer) -> MarketView:
    refused = OfferRejection(offer=an_offer("odd").id, provider="p", reason="zero price")
    return MarketView(offers=offers, rejections=(refused,), failures=(), made_at=NOW)


def knowing(answers: Sequence[Answer] = (), stays: Sequence[Stay] = (), nodes: Sequence[Node] = ()) -> Beliefs:
    return beliefs_of(answers, stays, nodes, NOW)


def test_where_nothing_is_known_the_market_stays_as_it_is() -> None:
    view = view_of(spot())
    assert with_beliefs(view, knowing()) is view
    assert as_advertised(view) is None


def test_an_exhausted_place_is_refused_by_name_and_its_neighbour_is_not() -> None:
    here, there = spot("here"), spot("there", zone="y")
    view = with_beliefs(view_of(here, there), knowing([denied(here.place)]))
    assert [offer.available for offer in view.offers] == [0, 8]
    assert [is_exhausted(offer) for offer in view.offers] == [True, False]
    assert view.rejections[1].offer == "here"
    assert view.rejections[1].reason == "exhausted: denied 2 of 2 at 11:55; believed depth 0"


def test_what_is_left_of_a_place_is_on_offer() -> None:
    here = spot()
    there = [node("n1", here.place), node("gone", here.place, NodeState.GONE)]
    view = with_beliefs(view_of(here), knowing([denied(here.place, held=3)], nodes=there))
    assert view.offers[0].available == 2
    assert len(view.rejections) == 1


def test_what_was_denied_to_be_created_counts_for_nothing_until_it_is_there() -> None:
    here = spot().place
    waiting = node("n1", here, NodeState.EXPECTED, None)
    assert knowing([denied(here, nodes=["n1"])], nodes=[waiting]).ours == {}
    assert knowing([denied(here, nodes=["n2"])], nodes=[waiting]).ours == {here: 1}
    assert knowing([denied(here, nodes=["n1"])], nodes=[node("n1", here)]).ours == {here: 1}


def test_the_advertised_market_has_everything_again() -> None:
    market = view_of(spot("here"), spot("untold", zone="y", available=None), spot("other", zone="x"))
    told = with_beliefs(market, knowing([denied(offer.place) for offer in market.offers[:2]]))
    assert as_advertised(told) == market


def test_a_reclaim_makes_its_place_less_reliable_and_what_is_lost_with_it_a_little() -> None:
    here, beside, apart = spot("here"), spot("beside", kind="t.large"), an_offer("kept", reliability=RELIABILITY)
    known = knowing(stays=[stay(here.place, 10, reclaimed=True)])
    lost = [known.of(offer).reliability.interruption_per_month for offer in (here, beside, apart)]
    assert lost[0] > lost[1] > 0.1 == lost[2], "what was bought to keep is not reclaimed with spot"
    assert known.of(here).reliability.own == OwnHistory(reclaims=1, node_hours=10)
    assert known.of(beside).reliability.own == OwnHistory(reclaims=0, node_hours=0)


def test_a_quote_that_was_bought_on_is_believed_as_much_as_its_place_is_now() -> None:
    here = spot()
    quote = a_quote(here, 1, DAY, usd("0.03"))
    quote = quote.model_copy(update={"survival": 0.8 * survival(here, 24)})
    known = knowing(stays=[stay(here.place, 10, reclaimed=True)])
    again = known.recalled(quote)
    assert again.survival == pytest.approx(0.8 * survival(known.of(here), 24))
    assert known.recalled(again) == again, "whatever was corrected before"
    assert knowing().recalled(quote) is quote
