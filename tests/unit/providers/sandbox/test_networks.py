from decimal import Decimal

import pytest

from engine.model.market import PurchaseOption
from providers.network.auction import close_round
from providers.network.wire import WireAuctionRule
from providers.sandbox.networks import agora_listings, agora_rivals, harbor_listings, main, sandbox_signer

CLOUD_PRICE_PER_VCPU = Decimal("0.042")


@pytest.mark.parametrize("listings", [harbor_listings(["harbor-eu"]), agora_listings(["agora-us"])])
def test_limited_stock_below_the_clouds_list_prices(listings: list) -> None:  # type: ignore[type-arg]
    assert len(listings) >= 3
    for listing in listings:
        assert 4 <= listing.units <= 12
        assert listing.ask / Decimal(str(listing.resources.vcpus)) < CLOUD_PRICE_PER_VCPU


def test_harbor_posts_and_agora_auctions() -> None:
    assert {listing.option for listing in harbor_listings(["a", "b"])} == {PurchaseOption.ON_DEMAND}
    assert {listing.option for listing in agora_listings(["a"])} == {PurchaseOption.AUCTION}
    ids = [listing.offer_id for listing in harbor_listings(["a", "b"])]
    assert len(ids) == len(set(ids)) == 8


def test_rivals_are_repeatable_and_differ_by_seed_and_round() -> None:
    listings = agora_listings(["agora-us"])
    lot = listings[0].offer_id
    first = agora_rivals(listings, 1)
    assert first(lot, 7) == agora_rivals(listings, 1)(lot, 7)
    assert [first(lot, number) for number in range(5)] != [agora_rivals(listings, 2)(lot, n) for n in range(5)]
    assert len({tuple(first(lot, number)) for number in range(20)}) > 10


def test_agora_clears_below_its_worth_but_not_always() -> None:
    (listing, *_) = agora_listings(["agora-us"])
    rivals = agora_rivals([listing], 0)
    worth = listing.ask / Decimal("0.4")
    cleared = [
        close_round(
            WireAuctionRule.SEALED_SECOND_PRICE, listing.units, listing.ask, rivals(listing.offer_id, number), ()
        ).clearing_price
        for number in range(300)
    ]
    assert min(cleared) >= listing.ask
    assert Decimal("0.3") * worth < sorted(cleared)[150] < Decimal("0.7") * worth
    assert len(set(cleared)) > 20


def test_a_network_keeps_its_key_over_a_restart() -> None:
    (key,), (again,) = sandbox_signer("agora", 7).keys, sandbox_signer("agora", 7).keys
    assert key == again
    assert len({sandbox_signer(name, seed).keys[0].kid for name in ("agora", "harbor") for seed in (7, 8)}) == 4


def test_an_unknown_network(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--name", "bazaar"])
    assert "bazaar" in capsys.readouterr().err
