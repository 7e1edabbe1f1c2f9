"""Who is asked for a quote: the best for every use, of as many kinds as there are, and not too many."""

from collections.abc import Sequence

from engine.market.discovery import MarketView
from engine.market.scoring import ScoreWeights
from engine.market.shortlist import PER_USE, Use, shortlist
from engine.model.capacity import Resources
from engine.model.market import Offer, PurchaseOption, Reliability
from tests.unit.engine.market.counterparties import NOW, a_need, an_offer

LEAN = Use(Resources(vcpus=1, memory_gib=2))
LARGE = Use(Resources(vcpus=1, memory_gib=8))


def _view(*offers: Offer) -> MarketView:
    return MarketView(offers=offers, rejections=(), failures=(), made_at=NOW)


def _ids(offers: Sequence[Offer]) -> list[str]:
    return [offer.id for offer in offers]


def test_the_shortlist_takes_the_best_of_every_market() -> None:
    many = [an_offer(f"p{index:02d}", price=f"0.{index + 10}") for index in range(20)]
    dear = an_offer("dear", provider="q", price="9")
    spots = [an_offer("s", option=PurchaseOption.SPOT, price="0.5")]
    chosen = shortlist(_view(*many, dear, *spots), a_need(), ScoreWeights(), per_use=3)
    assert [offer.id for offer in chosen] == ["p00", "p01", "p02", "s", "dear"]


def test_spot_is_taken_from_as_many_correlation_groups_as_there_are() -> None:
    def spot(name: str, price: str, group: str) -> Offer:
        together = Reliability(correlation_group=group)
        return an_offer(name, price=price, option=PurchaseOption.SPOT, reliability=together)

    alike = [spot(f"a{index}", f"0.0{index + 1}", "a") for index in range(4)]
    others = [spot("b0", "0.06", "b"), spot("c0", "0.07", "c")]
    chosen = shortlist(_view(*alike, *others), a_need(), per_use=4)
    assert {offer.id for offer in chosen} == {"a0", "a1", "b0", "c0"}
    assert [offer.id for offer in chosen] == ["a0", "a1", "b0", "c0"], "best first"


def _carrying(offer: Offer) -> list[Use]:
    return [use for use in (LEAN, LARGE) if offer.resources.holds(use.slice)]


def test_every_use_has_quotes_that_hold_it() -> None:
    """What is cheapest per lean slice holds none of the large ones."""
    lean = [an_offer(f"lean-{i}", price="0.04", instance_type=f"c{i}", vcpus=4, memory_gib=7) for i in range(8)]
    large = [an_offer(f"large-{i}", price="0.09", instance_type=f"r{i}", vcpus=2, memory_gib=16) for i in range(8)]
    chosen = shortlist(_view(*lean, *large), a_need(), uses=_carrying)
    assert _ids(chosen) == [f"lean-{i}" for i in range(6)] + [f"large-{i}" for i in range(6)]
    assert _ids(shortlist(_view(*lean, *large), a_need())) == [f"lean-{i}" for i in range(6)]


def test_what_is_of_no_use_takes_nobodys_place() -> None:
    offers = [an_offer(f"no-{i}", price="0.01") for i in range(9)] + [an_offer("yes", price="0.05")]
    chosen = shortlist(_view(*offers), a_need(), uses=lambda offer: (LEAN,) if offer.id == "yes" else ())
    assert _ids(chosen) == ["yes"]


def test_the_zones_of_one_type_do_not_fill_it() -> None:
    cheap = [an_offer(f"cheap-{zone}", price="0.04", zone=zone) for zone in "abcdef"]
    dear = [
        an_offer(f"dear-{name}-{zone}", price="0.06", zone=zone, instance_type=f"m{name}.small")
        for name in "78"
        for zone in "abcdef"
    ]
    chosen = shortlist(_view(*cheap, *dear), a_need())
    assert _ids(chosen) == ["cheap-a", "cheap-b", "dear-7-a", "dear-7-b", "dear-8-a", "dear-8-b"]
    assert _ids(shortlist(_view(*cheap), a_need())) == _ids(cheap), "where there is nothing else, they do"


def test_the_zones_of_one_spot_type_neither_though_they_fail_apart() -> None:
    def spot(name: str, zone: str, price: str) -> Offer:
        together = Reliability(correlation_group=f"{zone}/{name}")
        kind = f"{name}.small"
        return an_offer(
            f"{name}-{zone}",
            price=price,
            zone=zone,
            instance_type=kind,
            option=PurchaseOption.SPOT,
            reliability=together,
        )

    offers = [spot("m7", zone, "0.02") for zone in "abcdef"] + [spot("r7", zone, "0.03") for zone in "abcdef"]
    chosen = _ids(shortlist(_view(*offers), a_need()))
    assert len(chosen) == PER_USE
    assert {"r7-a", "r7-b"} < set(chosen)


def test_many_uses_do_not_make_it_long_but_none_is_left_out() -> None:
    """Forty offers for each use, each good for that use alone."""
    uses = [Use(Resources(vcpus=1, memory_gib=1)) for _ in range(30)]
    by_offer = {f"o{use:02d}-{i:02d}": uses[use] for use in range(30) for i in range(40)}
    offers = [an_offer(name, instance_type=name) for name in by_offer]
    few = shortlist(_view(*offers[:320]), a_need(), uses=lambda offer: (by_offer[offer.id],))
    assert len(few) == 4 * PER_USE
    assert {by_offer[offer.id] for offer in few} == set(uses[:8]), "in turns"
    many = shortlist(_view(*offers), a_need(), uses=lambda offer: (by_offer[offer.id],))
    assert len(many) == len({by_offer[offer.id] for offer in many}) == 30, "one for each"
