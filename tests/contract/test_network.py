"""The provider contract and what only networks can do, against both sandbox networks as real processes."""

import csv
import io
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from queue import Queue
from random import Random
from uuid import uuid4

import pytest
from pydantic import SecretStr

from engine.clock import wait_until
from engine.errors import InsufficientCapacity, NotFound, ProviderError, QuoteExpired
from engine.listening import listening
from engine.market.auction import AuctionStrategy, worth_of
from engine.market.base import LiveMarket, Need
from engine.model.billing import BillDelivery
from engine.model.market import Hold, Offer, PurchaseOption, Quote, ReclaimNotice
from engine.model.money import usd
from engine.model.value import Interval
from providers.base import (
    AuctionRule,
    Provider,
    ProviderSettings,
    RfqReply,
    SupportsAuctions,
    SupportsAuctionTerms,
    SupportsBills,
    SupportsEventStream,
    SupportsHolds,
    SupportsInventory,
    SupportsOfferBook,
    SupportsReclaimNotices,
    SupportsRfq,
)
from providers.network.client import NetworkClient
from providers.network.provider import NetworkProvider
from providers.network.wire import HoldState, WireMoney, WireResources, WireTerm
from providers.network.wire_records import CapacityEvent
from tests.contract.provider_contract import SMALL, ProviderContract, SandboxControl, WallClock, running_server

_ENDLESS = 1000
"""Units that no seller here has."""

SPEED = ("--meter-speed", "360000")


def _settings(control: SandboxControl, name: str, region: str) -> ProviderSettings:
    return ProviderSettings(
        name=name,
        kind="network",
        account="shardwright",
        regions=(region,),
        endpoint=control.url,
        credentials={"token": SecretStr("sandbox")},
        timeout_seconds=5,
    )


def _client(settings: ProviderSettings) -> NetworkClient:
    assert settings.endpoint is not None
    return NetworkClient(settings.endpoint, settings.credentials["token"].get_secret_value(), clock=WallClock())


def _day() -> Interval:
    now = datetime.now(UTC)
    return Interval(start=now, end=now + timedelta(hours=24))


def _quoted(network: NetworkProvider, offer: Offer, quantity: int = 1) -> Quote | None:
    with suppress(InsufficientCapacity):
        return network.quote(offer, quantity, _day())
    return None


def _refuses_more_than_is_on_offer(network: NetworkProvider) -> bool:
    offer = _first(network)
    return _quoted(network, offer, (offer.available or 0) + 1) is None


def _hold_all(network: NetworkProvider, one: Quote) -> list[Hold]:
    """Until it refuses."""
    holds: list[Hold] = []
    with suppress(InsufficientCapacity):
        while len(holds) < _ENDLESS:
            holds.append(network.hold(one, key=_key()))
    return holds


def _first(provider: Provider) -> Offer:
    return next(iter(provider.offers(SMALL)))


def _key() -> str:
    return uuid4().hex


class NetworkContract(ProviderContract):
    kept_for_the_winner = 0
    """Units of a quote that stay set aside after its hold was released."""

    def firm_quote(self, settings: ProviderSettings, offer: Offer, quantity: int = 1) -> Quote:
        raise NotImplementedError

    def launch(self, settings: ProviderSettings, offer: Offer, node: str, token: str) -> str:
        provider = NetworkProvider(settings, clock=WallClock())
        hold = provider.hold(self.firm_quote(settings, offer), key=_key())
        assert hold.provider_reference is not None
        with _client(settings) as client:
            return client.confirm(
                hold.provider_reference, key=_key(), node=node, token=token, user_data="#!/bin/sh\ntrue\n"
            ).reservation_id

    def bill_total(self, delivery: BillDelivery) -> Decimal:
        rows = csv.DictReader(io.StringIO(delivery.content.decode()))
        return sum((Decimal(row["BilledCost"]) for row in rows), Decimal(0))

    @pytest.fixture
    def network(self, settings: ProviderSettings) -> NetworkProvider:
        return NetworkProvider(settings, clock=WallClock())

    def test_has_the_powers_of_a_network(self, provider: Provider) -> None:
        for power in (
            SupportsHolds,
            SupportsAuctions,
            SupportsAuctionTerms,
            SupportsEventStream,
            SupportsInventory,
            SupportsOfferBook,
            SupportsReclaimNotices,
            SupportsRfq,
            SupportsBills,
        ):
            assert isinstance(provider, power)

    def test_same_key_same_hold(self, network: NetworkProvider, settings: ProviderSettings) -> None:
        offer = _first(network)
        quote, key = self.firm_quote(settings, offer), _key()
        first = network.hold(quote, key=key)
        assert network.hold(quote, key=key).id == first.id
        assert self._free(network, offer) == (offer.available or 0) - 1
        network.release(first.provider_reference or "")
        network.release(first.provider_reference or "")
        assert self._free(network, offer) == (offer.available or 0) - self.kept_for_the_winner

    def test_a_released_hold_cannot_be_confirmed(self, network: NetworkProvider, settings: ProviderSettings) -> None:
        hold = network.hold(self.firm_quote(settings, _first(network)), key=_key())
        network.release(hold.provider_reference or "")
        with pytest.raises(NotFound):
            network.confirm(hold)

    def test_confirm_is_idempotent_and_release_ends_it(
        self, network: NetworkProvider, settings: ProviderSettings
    ) -> None:
        offer = _first(network)
        hold = network.hold(self.firm_quote(settings, offer), key=_key())
        paid = network.confirm(hold)
        assert network.confirm(hold) == paid
        network.release(paid.provider_reference or "")
        assert self._free(network, offer) == (offer.available or 0) - self.kept_for_the_winner

    def test_a_quote_that_the_network_never_gave(self, network: NetworkProvider, settings: ProviderSettings) -> None:
        quote = self.firm_quote(settings, _first(network))
        with pytest.raises(QuoteExpired):
            network.hold(quote.model_copy(update={"id": "nowhere/quote-1"}), key=_key())

    def test_a_node_is_started_once(self, network: NetworkProvider, settings: ProviderSettings) -> None:
        offer = _first(network)
        hold = network.hold(self.firm_quote(settings, offer), key=_key())
        reference, node = hold.provider_reference or "", f"node-{_key()[:8]}"
        with _client(settings) as client:
            first = client.confirm(reference, key="k1" + node, node=node, token="t", user_data="one")
            again = client.confirm(reference, key="k2" + node, node=node, token="t", user_data="two")
            assert first.reservation_id == again.reservation_id
            with pytest.raises(ProviderError, match="another token"):
                client.confirm(reference, key="k3" + node, node=node, token="u", user_data="")
            assert client.hold_state(reference).state is HoldState.HELD
            network.confirm(hold)
            client.delete_reservation(first.reservation_id)
            client.delete_reservation(first.reservation_id)
            assert client.reservation(first.reservation_id).state.value == "ended"
        assert self._free(network, offer) == offer.available

    def test_a_reclaim_is_an_event(
        self, network: NetworkProvider, settings: ProviderSettings, control: SandboxControl
    ) -> None:
        since = datetime.now(UTC) - timedelta(seconds=1)
        offer = _first(network)
        node = f"node-{_key()[:8]}"
        instance_id = self.launch(settings, offer, node, "shard:x:y:1")
        control.reclaim(instance_id, notice_seconds=0.5)
        notice = next(found for found in network.reclaim_notices(since) if found.node == node)
        assert notice.provider == settings.name
        assert notice.notice == timedelta(seconds=0.5)
        assert wait_until(lambda: self._free(network, offer) == offer.available, WallClock(), timeout_seconds=10)

    def test_a_reclaim_is_heard_at_once_by_who_listens(
        self, network: NetworkProvider, settings: ProviderSettings, control: SandboxControl
    ) -> None:
        node = f"node-{_key()[:8]}"
        instance_id = self.launch(settings, _first(network), node, "shard:x:y:1")
        heard: Queue[ReclaimNotice] = Queue()
        with listening([network], clock=WallClock(), rng=Random(0), on_notice=heard.put, observe=lambda _: None):
            control.reclaim(instance_id, notice_seconds=0.5)
            deadline = time.monotonic() + 10
            while (notice := heard.get(timeout=max(0.1, deadline - time.monotonic()))).node != node:
                pass
        assert (notice.provider, notice.notice) == (settings.name, timedelta(seconds=0.5))

    def test_user_data_reaches_the_machine_and_nobody_else(
        self, settings: ProviderSettings, control: SandboxControl, network: NetworkProvider
    ) -> None:
        node = f"node-{_key()[:8]}"
        instance_id = self.launch(settings, _first(network), node, "shard:x:y:1")
        row = next(found for found in control.instances() if found["instance_id"] == instance_id)
        assert (row["node"], row["user_data"], row["state"]) == (node, "#!/bin/sh\ntrue\n", "running")
        with _client(settings) as client:
            assert "bin/sh" not in client.reservation(instance_id).model_dump_json()
        network.terminate(instance_id)

    @staticmethod
    def _free(network: NetworkProvider, offer: Offer) -> int | None:
        return next(found.available for found in network.offers(SMALL) if found.id == offer.id)


class TestHarbor(NetworkContract):
    @pytest.fixture(scope="class")
    @classmethod
    def control(cls) -> Iterator[SandboxControl]:
        with running_server("providers.sandbox.networks", "--name", "harbor", *SPEED) as server:
            yield server

    @pytest.fixture
    def settings(self, control: SandboxControl) -> ProviderSettings:
        return _settings(control, "harbor", "harbor-eu")

    def firm_quote(self, settings: ProviderSettings, offer: Offer, quantity: int = 1) -> Quote:
        return NetworkProvider(settings, clock=WallClock()).quote(offer, quantity, _day())

    def test_posts_fixed_prices(self, network: NetworkProvider) -> None:
        for offer in network.offers(SMALL):
            assert offer.option is PurchaseOption.ON_DEMAND
            assert network.quote(offer, 1, _day()).unit_price == offer.price

    def test_sells_no_more_than_it_has(self, network: NetworkProvider) -> None:
        # A hold that an earlier test has left may lapse between the two readings: then both are made again.
        assert wait_until(lambda: _refuses_more_than_is_on_offer(network), WallClock(), timeout_seconds=10)
        offer = _first(network)
        quote = network.quote(offer, offer.available or 0, _day())
        holds: list[Hold] = []
        try:
            one: Quote | None = quote.model_copy(update={"quantity": 1})
            while one is not None and len(holds) < _ENDLESS:
                holds += _hold_all(network, one)
                # A hold that an earlier test has left may lapse meanwhile: then its unit is to be had, too, and not by
                # the first quote, whose units are all held.
                one = _quoted(network, offer)
            assert quote.quantity <= len(holds) < _ENDLESS
        finally:
            for hold in holds:
                network.release(hold.provider_reference or "")

    def test_talks_about_its_prices(self, network: NetworkProvider) -> None:
        offer, key = _first(network), _key()
        first = network.propose(offer, 1, offer.price * Decimal("0.9"), _day(), key=key, round_number=1)
        assert first.reply is RfqReply.COUNTERED
        assert offer.price * Decimal("0.9") < first.quote.unit_price < offer.price
        taken = network.propose(offer, 1, first.quote.unit_price, _day(), key=key, round_number=2)
        assert (taken.reply, taken.final) == (RfqReply.ACCEPTED, True)
        hold = network.hold(taken.quote, key=_key())
        assert hold.quote.unit_price <= first.quote.unit_price
        network.release(hold.provider_reference or "")

    def test_sellers_undercut_each_other(self, settings: ProviderSettings, network: NetworkProvider) -> None:
        offer = _first(network)
        least = WireResources(vcpus=offer.resources.vcpus, memory_gib=offer.resources.memory_gib)
        term = WireTerm(start=_day().start, end=_day().end)
        with _client(settings) as client:
            opened = client.open_reverse_auction(
                least, quantity=1, term=term, ceiling=WireMoney(amount=Decimal(9), currency="USD"), key=_key()
            )
            assert wait_until(
                lambda: client.reverse_auction(opened.auction_id).quote is not None, WallClock(), timeout_seconds=10
            )

    def test_events_come_as_they_happen_and_resume(self, settings: ProviderSettings, network: NetworkProvider) -> None:
        with _client(settings) as client, ThreadPoolExecutor(1) as beside:
            quote = network.quote(_first(network), 1, _day())
            client.events(datetime.now(UTC))
            last = max((event.event_id for event in client.stream()), default=0)
            coming = client.stream(last, wait_seconds=20)
            holding = beside.submit(network.hold, quote, key=_key())
            event = next(coming)
            coming.close()
            assert isinstance(event, CapacityEvent)
            assert event.event_id == last + 1
            assert event.event_id not in [later.event_id for later in client.stream(event.event_id)]
            network.release(holding.result().provider_reference or "")

    def test_a_unit_is_resized(self, settings: ProviderSettings, network: NetworkProvider) -> None:
        small, larger = sorted(network.offers(SMALL), key=lambda offer: offer.price.amount)[:2]
        unit = self.launch(settings, small, f"node-{_key()[:8]}", "t")
        with _client(settings) as client:
            limit = WireMoney(amount=larger.price.amount, currency="USD")
            resized = client.resize(unit, offer_id=larger.id.removeprefix("harbor/"), limit_price=limit, key=_key())
            assert (resized.reservation_id, resized.instance_type) == (unit, larger.instance_type)
        network.terminate(unit)


class TestAgora(NetworkContract):
    kept_for_the_winner = 1

    @pytest.fixture(scope="class")
    @classmethod
    def control(cls) -> Iterator[SandboxControl]:
        with running_server("providers.sandbox.networks", "--name", "agora", *SPEED) as server:
            yield server

    @pytest.fixture
    def settings(self, control: SandboxControl) -> ProviderSettings:
        return _settings(control, "agora", "agora-us")

    def firm_quote(self, settings: ProviderSettings, offer: Offer, quantity: int = 1) -> Quote:
        network = NetworkProvider(settings, clock=WallClock())
        outcome = network.bid(offer, quantity, usd("9.99"), _day(), key=_key())
        assert outcome.quote is not None, outcome.reason
        return outcome.quote

    def _launched(self, provider: Provider, settings: ProviderSettings) -> tuple[str, str, str]:
        offer = _first(provider)
        node = f"node-{_key()[:8]}"
        token = f"shard:{offer.cell}:{node}:1"
        return node, token, self.launch(settings, offer, node, token)

    def test_sells_by_auction_only(self, network: NetworkProvider) -> None:
        for offer in network.offers(SMALL):
            assert offer.option is PurchaseOption.AUCTION
            assert offer.price_history
            with pytest.raises(ProviderError, match="bid for it"):
                network.quote(offer, 1, _day())
        assert {network.auction_terms(offer).rule for offer in network.offers(SMALL)} == set(AuctionRule)

    def _sold_by(self, network: NetworkProvider, rule: AuctionRule) -> Offer:
        return next(offer for offer in network.offers(SMALL) if network.auction_terms(offer).rule is rule)

    def test_a_first_price_winner_pays_its_own_bid(self, network: NetworkProvider) -> None:
        won = network.bid(self._sold_by(network, AuctionRule.FIRST_PRICE), 1, usd("0.4321"), _day(), key=_key())
        assert won.quote is not None, won.reason
        assert won.quote.unit_price == won.bid == usd("0.4321")

    def test_an_open_auction_is_won_at_its_own_last_bid_and_no_more_than_it_takes(
        self, network: NetworkProvider
    ) -> None:
        offer = self._sold_by(network, AuctionRule.OPEN_ASCENDING)
        won = network.bid(offer, 1, usd("9.99"), _day(), key=_key())
        assert won.quote is not None, won.reason
        assert won.quote.unit_price == won.bid
        assert offer.price <= won.quote.unit_price <= usd("0.2")
        above = network.bid(offer, 1, usd("0.0001"), _day(), key=_key())
        assert (above.won, above.bid) == (False, None)

    def test_the_strategy_buys_under_every_rule_and_what_is_held_costs_what_was_won(
        self, network: NetworkProvider
    ) -> None:
        offers = tuple(network.offers(SMALL))
        posted = Offer.model_validate(
            offers[0].model_copy(
                update={"id": "p/posted", "provider": "p", "option": PurchaseOption.ON_DEMAND, "price": usd("0.3")}
            )
        )
        market = LiveMarket(
            providers={network.name: network}, clock=WallClock(), rng=Random(0), offers=(*offers, posted)
        )
        need = Need(key=_key(), max_units=1, term=_day())
        for offer in offers:
            (quote,) = AuctionStrategy().negotiate(need, [offer], market)
            assert quote.unit_price <= quote.price_ceiling <= worth_of(offer, need, market.offers)
            hold = network.hold(quote, key=_key())
            assert hold.quote.unit_price == quote.unit_price
            network.release(hold.provider_reference or "")

    def test_a_winner_pays_the_clearing_price_and_a_key_bids_once(self, network: NetworkProvider) -> None:
        offer, key = _first(network), _key()
        won = network.bid(offer, 1, usd("9.99"), _day(), key=key)
        assert won.won
        assert won.quote is not None
        assert won.quote.unit_price == won.clearing_price
        assert offer.price <= won.quote.unit_price <= usd("0.2")
        free = self._free(network, offer)
        assert network.bid(offer, 1, usd("8.88"), _day(), key=key).quote.id == won.quote.id  # type: ignore[union-attr]
        assert self._free(network, offer) == free
        network.bid(offer, 1, usd("9.99"), won.quote.term, key=_key())
        assert self._free(network, offer) == (free or 0) - 1, "won units are kept until the quote expires"

    def test_a_low_bid_loses_with_a_reason(self, network: NetworkProvider) -> None:
        outcome = network.bid(_first(network), 1, usd("0.0001"), _day(), key=_key())
        assert not outcome.won
        assert "reserve" in outcome.reason
