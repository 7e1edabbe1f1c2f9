"""What every provider must do, run against a real server on loopback.

A provider's test is a class that inherits ``ProviderContract`` and gives it two fixtures and two or three hooks::

    class TestAwsProvider(ProviderContract):
        @pytest.fixture(scope="class")
        @classmethod
        def control(cls):
            with running_server("providers.sandbox.aws", "--account", ACCOUNT, "--regions", "us-east-1") as server:
                yield server

        @pytest.fixture
        def settings(self, control): return ProviderSettings(name="aws", kind="aws", endpoint=control.url, …)

        def launch(self, settings, offer, node, token): ...    # SupportsInventory, SupportsBills
        def bill_total(self, delivery): ...                    # SupportsBills: the sum of its rows, exactly

The adapter comes from the registry and sleeps on a clock that only pretends to, so retries cost no time.
"""

import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from typing import Any
from uuid import uuid4

import httpx
import pytest
from pydantic import SecretStr

from engine.clock import wait_until
from engine.errors import (
    AuthenticationFailed,
    InsufficientCapacity,
    ProviderAnswerInvalid,
    ProviderUnavailable,
)
from engine.model.billing import BillDelivery
from engine.model.capacity import Placement, Resources
from engine.model.market import Offer, OfferQuery, PurchaseOption, Quote
from engine.model.value import Interval
from providers.base import Provider, ProviderSettings, SupportsBills, SupportsInventory
from providers.registry import open_provider

SMALL = OfferQuery(at_least=Resources(vcpus=1, memory_gib=1))
START_SECONDS = 30.0


class RecordingClock:
    """Real time plus whatever was slept; sleeping is noted, not done."""

    def __init__(self) -> None:
        self.sleeps: list[float] = []

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=sum(self.sleeps))

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)


class WallClock:
    """For waiting on a real process, in bounded steps."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class SandboxControl:
    """The /_sandbox/ side of a running sandbox server: what the market may do to a customer."""

    def __init__(self, url: str, pid: int, ca_file: str | None = None) -> None:
        self.url, self.pid = url, pid
        verify: ssl.SSLContext | bool = ssl.create_default_context(cafile=ca_file) if ca_file else True
        self._http = httpx.Client(base_url=url, timeout=10.0, verify=verify, trust_env=False)

    def instances(self) -> list[dict[str, Any]]:
        return self._get("/_sandbox/instances")

    def notices(self) -> list[dict[str, Any]]:
        return self._get("/_sandbox/notices")

    def reclaim(self, instance_id: str, notice_seconds: float) -> None:
        self._post("/_sandbox/reclaim", {"instance_id": instance_id, "notice_seconds": notice_seconds})

    def price(self, region: str, instance_type: str, option: PurchaseOption, price: Decimal) -> None:
        self._post(
            "/_sandbox/price",
            {"region": region, "instance_type": instance_type, "option": option.value, "price": str(price)},
        )

    def fault(self, mode: str, seconds: float = 60) -> None:
        self._post("/_sandbox/fault", {"mode": mode, "seconds": seconds})

    @contextmanager
    def faulty(self, mode: str) -> Iterator[None]:
        self.fault(mode)
        try:
            yield
        finally:
            self.fault("none", 0)

    def close(self) -> None:
        self._http.close()

    def _get(self, path: str) -> list[dict[str, Any]]:
        answer: list[dict[str, Any]] = self._http.get(path).raise_for_status().json()
        return answer

    def _post(self, path: str, body: dict[str, Any]) -> None:
        answer = self._http.post(path, json=body)
        assert answer.status_code == 204, f"{path}: {answer.status_code} {answer.text[:300]}"


@contextmanager
def running_server(
    module: str, *args: str, scheme: str = "http", ca_file: str | None = None
) -> Iterator[SandboxControl]:
    """``python -m MODULE --port 0 ARGS…`` until the block ends; yields once it has said ``ready PORT``."""
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", module, "--port", "0", *args], stdout=subprocess.PIPE, stderr=log, text=True
        )
        try:
            port = _await_ready(process, log)
            control = SandboxControl(f"{scheme}://127.0.0.1:{port}", process.pid, ca_file)
            try:
                yield control
            finally:
                control.close()
        finally:
            process.terminate()
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            assert process.stdout is not None
            process.stdout.close()


def _await_ready(process: "subprocess.Popen[str]", log: Any) -> int:
    assert process.stdout is not None
    watchdog = threading.Timer(START_SECONDS, process.kill)
    watchdog.start()
    try:
        line = process.stdout.readline()
    finally:
        watchdog.cancel()
    word, _, port = line.strip().partition(" ")
    if word != "ready" or not port.isdigit():
        process.wait(timeout=5)
        log.seek(0)
        pytest.fail(f"the server said {line!r} instead of `ready PORT`; its errors:\n{log.read()[-3000:]}")
    return int(port)


class ProviderContract:
    """Inherit, give ``control`` and ``settings``, and override the hooks that the provider needs."""

    unpublished_until_bought: tuple[PurchaseOption, ...] = (PurchaseOption.AUCTION,)
    """Options that are not had by asking for a quote."""

    # -- given by the subclass ------------------------------------------------------------------------------------

    @pytest.fixture(scope="class")
    @classmethod
    def control(cls) -> Iterator[SandboxControl]:
        raise NotImplementedError("yield running_server(…)")

    @pytest.fixture
    def settings(self, control: SandboxControl) -> ProviderSettings:
        raise NotImplementedError("ProviderSettings whose endpoint is control.url")

    def launch(self, settings: ProviderSettings, offer: Offer, node: str, token: str) -> str:
        """Start one instance through the provider's own API, tagged as the stack programs tag; its id."""
        raise NotImplementedError

    def bill_total(self, delivery: BillDelivery) -> Decimal:
        """The exact sum of the delivery's rows, read in the provider's own format."""
        raise NotImplementedError

    def scarce(self, offers: list[Offer]) -> Offer:
        """An offer whose quote can tell that there is no capacity."""
        return offers[0]

    # -- given to the cases ---------------------------------------------------------------------------------------

    @pytest.fixture
    def clock(self) -> RecordingClock:
        return RecordingClock()

    @pytest.fixture
    def provider(self, settings: ProviderSettings, clock: RecordingClock) -> Provider:
        return open_provider(settings, clock=clock)

    @pytest.fixture
    def impatient(self, settings: ProviderSettings, clock: RecordingClock) -> Provider:
        return open_provider(settings.model_copy(update={"timeout_seconds": 0.5}), clock=clock)

    def quotable(self, provider: Provider) -> list[Offer]:
        found = [offer for offer in provider.offers(SMALL) if offer.option not in self.unpublished_until_bought]
        if not found:
            pytest.skip("everything on this market is sold by auction")
        return found

    @staticmethod
    def ask(provider: Provider, offer: Offer, clock: RecordingClock, quantity: int = 1) -> Quote:
        return provider.quote(offer, quantity, _term(clock))

    # -- offers ---------------------------------------------------------------------------------------------------

    def test_is_a_provider_under_its_configured_name(self, provider: Provider, settings: ProviderSettings) -> None:
        assert isinstance(provider, Provider)
        assert provider.name == settings.name

    def test_offers_are_priced_and_typed(self, provider: Provider, settings: ProviderSettings) -> None:
        offers = list(provider.offers(SMALL))
        assert offers
        for offer in offers:
            assert isinstance(offer, Offer)
            assert (offer.provider, offer.account) == (settings.name, settings.account)
            assert offer.region in settings.regions
            assert offer.zone
            assert offer.resources.vcpus > 0
            assert offer.resources.memory_gib > 0
            assert offer.price.amount > 0 or offer.option is PurchaseOption.AUCTION
            assert offer.price_at <= datetime.now(UTC) + timedelta(seconds=5)
            assert offer.reliability.correlation_group
            assert [point.at for point in offer.price_history] == sorted(point.at for point in offer.price_history)

    def test_every_region_has_offers(self, provider: Provider, settings: ProviderSettings) -> None:
        assert {offer.region for offer in provider.offers(SMALL)} == set(settings.regions)

    def test_offer_ids_are_unique(self, provider: Provider) -> None:
        ids = [offer.id for offer in provider.offers(SMALL)]
        assert len(ids) == len(set(ids))

    def test_an_offer_keeps_its_id(self, provider: Provider) -> None:
        def posted() -> set[str]:
            return {o.id for o in provider.offers(SMALL) if o.option is not PurchaseOption.AUCTION}

        assert posted() == posted()

    def test_offers_survive_json(self, provider: Provider) -> None:
        for offer in provider.offers(SMALL):
            assert Offer.model_validate_json(offer.model_dump_json()) == offer

    def test_offers_hold_what_is_asked_for(self, provider: Provider) -> None:
        everything = list(provider.offers(SMALL))
        most = max(offer.resources.vcpus for offer in everything)
        need = Resources(vcpus=most, memory_gib=1)
        found = list(provider.offers(OfferQuery(at_least=need)))
        assert found
        assert all(offer.resources.holds(need) >= 1 for offer in found)
        assert not list(provider.offers(OfferQuery(at_least=Resources(vcpus=100_000, memory_gib=1))))

    def test_offers_respect_placement(self, provider: Provider, settings: ProviderSettings) -> None:
        region = settings.regions[0]
        here = Placement(providers=(settings.name,), regions=(region,))
        found = list(provider.offers(SMALL.model_copy(update={"placement": here})))
        assert {offer.region for offer in found} == {region}
        for elsewhere in (Placement(providers=("another",)), Placement(regions=("nowhere-1",))):
            assert not list(provider.offers(SMALL.model_copy(update={"placement": elsewhere})))

    def test_offers_respect_purchase_options(self, provider: Provider) -> None:
        present = {offer.option for offer in provider.offers(SMALL)}
        for option in present:
            only = list(provider.offers(SMALL.model_copy(update={"options": (option,)})))
            assert {offer.option for offer in only} == {option}
        absent = tuple(set(PurchaseOption) - present)
        if absent:
            assert not list(provider.offers(SMALL.model_copy(update={"options": absent})))

    def test_a_price_that_moves_is_seen(self, provider: Provider, control: SandboxControl) -> None:
        before = self.quotable(provider)[0]
        moved = before.price.amount + Decimal("0.0137")
        control.price(before.region, before.instance_type, before.option, moved)
        after = next(offer for offer in provider.offers(SMALL) if offer.id == before.id)
        assert after.price.amount == moved
        control.price(before.region, before.instance_type, before.option, before.price.amount)

    # -- quotes ---------------------------------------------------------------------------------------------------

    def test_a_quote_is_firm_expires_and_names_its_ceiling(self, provider: Provider, clock: RecordingClock) -> None:
        for offer in _one_per_option(self.quotable(provider)):
            quote = self.ask(provider, offer, clock)
            assert quote.offer.id == offer.id
            assert quote.quantity == 1
            assert quote.unit_price.currency == quote.price_ceiling.currency == offer.price.currency
            assert 0 < quote.unit_price.amount <= quote.price_ceiling.amount
            assert quote.expires_at > clock.now()
            assert quote.term.hours == pytest.approx(24)
            assert 0 <= quote.survival <= 1

    def test_quotes_have_their_own_ids(self, provider: Provider, clock: RecordingClock) -> None:
        offer = self.quotable(provider)[0]
        assert self.ask(provider, offer, clock).id != self.ask(provider, offer, clock).id

    def test_no_capacity_is_told(self, provider: Provider, control: SandboxControl, clock: RecordingClock) -> None:
        offer = self.scarce(self.quotable(provider))
        with control.faulty("no_capacity"), pytest.raises(InsufficientCapacity):
            self.ask(provider, offer, clock)
        assert self.ask(provider, offer, clock).offer.id == offer.id

    # -- a provider that is not well ------------------------------------------------------------------------------

    def test_down_is_unavailable(self, provider: Provider, control: SandboxControl) -> None:
        with control.faulty("down"), pytest.raises(ProviderUnavailable):
            list(provider.offers(SMALL))
        assert list(provider.offers(SMALL))

    def test_nobody_listening_is_unavailable(self, settings: ProviderSettings, clock: RecordingClock) -> None:
        assert settings.endpoint is not None
        closed = settings.endpoint.rpartition(":")[0] + ":1"
        with pytest.raises(ProviderUnavailable):
            list(open_provider(settings.model_copy(update={"endpoint": closed}), clock=clock).offers(SMALL))

    def test_slow_is_unavailable_within_the_time_out(self, impatient: Provider, control: SandboxControl) -> None:
        with control.faulty("slow"):
            started = time.monotonic()
            with pytest.raises(ProviderUnavailable):
                list(impatient.offers(SMALL))
            assert time.monotonic() - started < 8

    def test_rubbish_is_an_invalid_answer(self, provider: Provider, control: SandboxControl) -> None:
        with control.faulty("rubbish"), pytest.raises(ProviderAnswerInvalid):
            list(provider.offers(SMALL))

    def test_throttling_is_waited_out_then_unavailable(
        self, provider: Provider, control: SandboxControl, clock: RecordingClock
    ) -> None:
        with control.faulty("throttle"), pytest.raises(ProviderUnavailable):
            list(provider.offers(SMALL))
        assert clock.sleeps, "429 must be tried again before giving up"

    def test_missing_credentials(self, settings: ProviderSettings, clock: RecordingClock) -> None:
        if not settings.credentials:
            pytest.skip("this provider asks for no credentials")
        with pytest.raises(AuthenticationFailed):
            list(open_provider(settings.model_copy(update={"credentials": {}}), clock=clock).offers(SMALL))

    def test_wrong_credentials_are_named_but_not_shown(self, settings: ProviderSettings, clock: RecordingClock) -> None:
        if not settings.credentials:
            pytest.skip("this provider asks for no credentials")
        wrong = {name: SecretStr("not-the-right-one") for name in settings.credentials}
        with pytest.raises(AuthenticationFailed) as caught:
            list(open_provider(settings.model_copy(update={"credentials": wrong}), clock=clock).offers(SMALL))
        assert "not-the-right-one" not in str(caught.value)

    # -- inventory ------------------------------------------------------------------------------------------------

    def test_inventory_knows_what_runs_and_terminating_twice_is_fine(
        self, provider: Provider, settings: ProviderSettings, control: SandboxControl
    ) -> None:
        if not isinstance(provider, SupportsInventory):
            pytest.skip("no inventory")
        node, token, instance_id = self._launched(provider, settings)
        record = next(found for found in provider.instances() if found.instance_id == instance_id)
        assert (record.node, record.token) == (node, token)
        assert record.region in settings.regions
        assert record.launched_at <= datetime.now(UTC) + timedelta(seconds=5)
        assert instance_id in {row["instance_id"] for row in control.instances() if row["node"] == node}
        provider.terminate(instance_id)
        provider.terminate(instance_id)
        assert wait_until(lambda: not _runs(provider, instance_id), WallClock(), timeout_seconds=10)

    def test_a_reclaimed_instance_is_announced_and_gone(
        self, provider: Provider, settings: ProviderSettings, control: SandboxControl
    ) -> None:
        if not isinstance(provider, SupportsInventory):
            pytest.skip("no inventory")
        node, _, instance_id = self._launched(provider, settings)
        control.reclaim(instance_id, notice_seconds=1)
        assert node in {notice["node"] for notice in control.notices()}
        assert wait_until(lambda: not _runs(provider, instance_id), WallClock(), timeout_seconds=10)

    # -- bills ----------------------------------------------------------------------------------------------------

    def test_a_bill_sums_exactly_to_its_invoice(
        self, provider: Provider, settings: ProviderSettings, control: SandboxControl
    ) -> None:
        if not isinstance(provider, SupportsBills):
            pytest.skip("no bills")
        begin = datetime.now(UTC)
        _, _, instance_id = self._launched(provider, settings)
        launched = datetime.now(UTC)  # only now: on a busy machine the launch alone takes a second
        ran = timedelta(seconds=1.5)
        assert wait_until(lambda: datetime.now(UTC) - launched > ran, WallClock(), timeout_seconds=5)
        if isinstance(provider, SupportsInventory):
            provider.terminate(instance_id)
        delivery = provider.bill(Interval(start=begin, end=datetime.now(UTC) + timedelta(seconds=1)))
        assert isinstance(delivery, BillDelivery)
        assert delivery.provider == settings.name
        assert delivery.sha256 == sha256(delivery.content).hexdigest()
        assert delivery.invoice.total.amount > 0
        assert delivery.invoice.total == delivery.invoice.total.to_minor_units()
        assert self.bill_total(delivery) == delivery.invoice.total.amount

    def _launched(self, provider: Provider, settings: ProviderSettings) -> tuple[str, str, str]:
        """(node, token, instance id) of a fresh instance of something cheap; held first where one must."""
        offer = min(self.quotable(provider), key=lambda found: found.price.amount)
        node = f"node-{uuid4().hex[:8]}"
        token = f"shard:{offer.cell}:{node}:1"
        return node, token, self.launch(settings, offer, node, token)


def _term(clock: RecordingClock) -> Interval:
    now = clock.now()
    return Interval(start=now, end=now + timedelta(hours=24))


def _one_per_option(offers: list[Offer]) -> list[Offer]:
    return list({offer.option: offer for offer in offers}.values())


def _runs(provider: SupportsInventory, instance_id: str) -> bool:
    return any(record.running for record in provider.instances() if record.instance_id == instance_id)
