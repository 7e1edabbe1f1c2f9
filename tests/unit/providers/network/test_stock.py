from datetime import timedelta

import pytest

from providers.network.stock import AuctionRules, Lot, Refused, lots
from providers.network.wire import ProblemCode, WireAuctionRule
from tests.unit.providers.network.networks import START, a_listing


def a_lot(units: int = 3) -> Lot:
    return lots([a_listing(units=units)], START)["lot"]


def test_what_is_free_is_what_nobody_claims() -> None:
    lot = a_lot()
    lot.claim("a", 2, None, START)
    assert lot.free(START) == 1
    lot.give_back("a", 1)
    assert lot.free(START) == 2
    lot.give_back("a")
    lot.give_back("a")
    lot.give_back("nobody")
    assert lot.free(START) == 3


def test_a_claim_ends_by_itself() -> None:
    lot = a_lot()
    lot.claim("a", 3, START + timedelta(seconds=10), START)
    assert lot.free(START + timedelta(seconds=9)) == 0
    assert lot.free(START + timedelta(seconds=10)) == 3
    lot.keep_until("a", None)
    assert lot.free(START + timedelta(days=1)) == 0


def test_no_more_than_there_is() -> None:
    lot = a_lot()
    lot.claim("a", 2, None, START)
    with pytest.raises(Refused, match="2 units of lot wanted, 1 free") as caught:
        lot.claim("b", 2, None, START)
    assert caught.value.code is ProblemCode.INSUFFICIENT_CAPACITY
    assert lot.free(START) == 1


def test_an_offer_id_is_used_once() -> None:
    with pytest.raises(ValueError, match="share an offer id"):
        lots([a_listing(), a_listing()], START)


def test_rounds_follow_each_other() -> None:
    rules = AuctionRules(WireAuctionRule.SEALED_FIRST_PRICE, 2.0)
    now = START + timedelta(seconds=1.5)
    number = rules.round_at(now)
    assert rules.closes_at(number, now) == START + timedelta(seconds=2)
    assert rules.round_at(rules.closes_at(number, now)) == number + 1
