from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from engine.errors import ProviderUnavailable, UsageError
from providers.sandbox.contract import InstanceState, MarketOption, PriceChange, ReclaimOrder, SandboxInstance
from providers.sandbox.market import Market, Seller
from providers.sandbox.nodes import HostedNode, HostedNodes, Place
from providers.sandbox.servers import ServerClient


class Shop(ServerClient):
    """A provider server that keeps its prices in memory."""

    def __init__(self, prices: Sequence[PriceChange]) -> None:
        self.asked = {(p.region, p.instance_type, p.option): p for p in prices}
        self.reclaimed: list[ReclaimOrder] = []
        self.down = False

    def prices(self) -> list[PriceChange]:
        if self.down:
            raise ProviderUnavailable("the shop is shut")
        return list(self.asked.values())

    def change_price(self, change: PriceChange) -> None:
        self.asked[change.region, change.instance_type, change.option] = change

    def reclaim(self, order: ReclaimOrder) -> None:
        self.reclaimed.append(order)

    def price(self, kind: str, option: MarketOption = MarketOption.SPOT, region: str = "r1") -> Decimal:
        return self.asked[region, kind, option].price


def shop() -> Shop:
    return Shop(
        [
            PriceChange(region=region, instance_type=kind, option=option, price=Decimal("0.1"))
            for region in ("r1", "r2")
            for kind in ("small", "large")
            for option in (MarketOption.ON_DEMAND, MarketOption.SPOT)
        ]
    )


def nodes(*names: str, spot: bool = True) -> HostedNodes:
    hosted = HostedNodes()
    hosted.replace(
        HostedNode(
            provider="aws",
            kind="aws",
            account="1",
            place=Place(name=name, namespace=None, address=f"127.77.1.{i}", metadata_url=""),
            instance=SandboxInstance(
                instance_id=f"i-{name}",
                node=name,
                region="r1",
                zone="z",
                instance_type="small",
                spot=spot,
                state=InstanceState.RUNNING,
                user_data="true",
                private_ip=None,
                launched_at=datetime(2026, 1, 1, tzinfo=UTC),
            ),
        )
        for i, name in enumerate(names, start=1)
    )
    return hosted


def market(
    seller: Shop,
    *,
    seed: int = 1,
    reclaims: bool = False,
    hosted: HostedNodes | None = None,
    said: list[str] | None = None,
) -> Market:
    say = (lambda _: None) if said is None else said.append
    return Market({"aws": Seller(seller, 120.0)}, hosted or nodes("n1"), seed=seed, reclaims=reclaims, say=say)


def test_the_same_seed_moves_the_same_prices_and_another_does_not() -> None:
    first, second, third = shop(), shop(), shop()
    for seller, seed in ((first, 1), (second, 1), (third, 2)):
        moving = market(seller, seed=seed)
        for _ in range(10):
            moving.tick()
    assert first.asked == second.asked
    assert first.asked != third.asked
    assert first.asked != shop().asked


@pytest.mark.parametrize(("reclaims", "highest"), [(False, "0.1"), (True, "0.16")])
def test_nudges_stay_in_their_bounds_and_leave_list_prices_alone(reclaims: bool, highest: str) -> None:
    seller = shop()
    moving = market(seller, reclaims=reclaims)
    for _ in range(300):
        moving.tick()
    assert all(Decimal("0.06") <= p.price <= Decimal(highest) for p in seller.asked.values())
    assert all(p.price == Decimal("0.1") for p in seller.asked.values() if p.option is MarketOption.ON_DEMAND)


def test_cheaper_multiplies_what_matches_and_later_nudges_do_not_undo_it() -> None:
    seller = shop()
    moving = market(seller)
    moving.tick()
    before = seller.price("small")
    changed = moving.cheaper("small", Decimal("0.5"), provider="aws", region="r1", option=MarketOption.SPOT)
    assert [(name, change.price) for name, change in changed] == [("aws", seller.price("small"))]
    assert seller.price("small") == pytest.approx(before / 2, abs=Decimal("0.000001"))
    assert seller.price("small", region="r2") > Decimal("0.05")
    for _ in range(100):
        moving.tick()
    assert seller.price("small") <= before / 2 + Decimal("0.000001")


@pytest.mark.parametrize("factor", ["0", "1", "1.5", "-1"])
def test_only_a_factor_between_0_and_1_is_cheaper(factor: str) -> None:
    with pytest.raises(UsageError, match="not cheaper"):
        market(shop()).cheaper("small", Decimal(factor), provider=None, region=None, option=None)


def test_orders_for_what_is_not_there_are_refused() -> None:
    with pytest.raises(UsageError, match="nobody asks a price for 'huge'"):
        market(shop()).cheaper("huge", Decimal("0.5"), provider=None, region=None, option=None)
    with pytest.raises(UsageError, match="no provider 'gcp'"):
        market(shop()).cheaper("small", Decimal("0.5"), provider="gcp", region=None, option=None)
    with pytest.raises(UsageError, match="runs no node 'n9'"):
        market(shop()).reclaim("n9")


def test_a_reclaim_gives_the_providers_usual_notice_or_the_one_asked_for() -> None:
    seller = shop()
    moving = market(seller)
    assert moving.reclaim("n1").instance.instance_id == "i-n1"
    moving.reclaim("i-n1", 5)
    assert [(order.instance_id, order.notice_seconds) for order in seller.reclaimed] == [("i-n1", 120.0), ("i-n1", 5.0)]


def test_nothing_is_reclaimed_unless_the_market_was_told_to() -> None:
    quiet, lively, on_demand = shop(), shop(), shop()
    for seller, reclaims, spot in ((quiet, False, True), (lively, True, True), (on_demand, True, False)):
        moving = market(seller, reclaims=reclaims, hosted=nodes("n1", "n2", spot=spot))
        for _ in range(100):
            moving.tick()
    assert quiet.reclaimed == on_demand.reclaimed == []
    assert {order.instance_id for order in lively.reclaimed} <= {"i-n1", "i-n2"}
    assert lively.reclaimed


def test_a_server_that_is_down_is_named_and_the_market_goes_on() -> None:
    seller, said = shop(), list[str]()
    seller.down = True
    moving = market(seller, said=said)
    moving.tick()
    assert said == ["market: the shop is shut"]
    seller.down = False
    moving.tick()
    assert seller.asked != shop().asked
