"""Every lie about a price or a size is refused by name, and the honest offers beside it are taken."""

import json
from collections.abc import Callable, Collection
from datetime import timedelta
from typing import Any

import httpx
import pytest

from engine.clock import ManualClock
from engine.errors import ProviderAnswerInvalid
from engine.model.capacity import Resources
from engine.model.market import Offer
from engine.model.value import Interval
from providers.network.book import Terms
from providers.network.exchange import Exchange
from providers.network.provider import NetworkProvider
from providers.network.signing import Signer
from providers.network.stock import Listing
from tests.unit.providers.network.networks import START, a_listing, a_network, served
from tests.unit.providers.network.test_provider import DAY, QUERY, SETTINGS, Lying

Body = dict[str, Any]
GOOD, BAD = "good", "lot"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


def _provider(clock: ManualClock, change: Callable[[str, Body], Body]) -> NetworkProvider:
    network = a_network(clock, [a_listing(GOOD), a_listing(BAD)])
    return NetworkProvider(SETTINGS, clock=clock, transport=Lying(served(network, clock), change))


def _on_the_bad_offer(**fields: object) -> Callable[[str, Body], Body]:
    def change(path: str, body: Body) -> Body:
        if path == "/v1/offers":
            body["offers"] = [{**one, **fields} if one["offer_id"] == BAD else one for one in body["offers"]]
        return body

    return change


def _catalogue_says_smaller(path: str, body: Body) -> Body:
    if path == "/v1/shard-types":
        for kind in body["shard_types"]:
            kind["resources"] = {"vcpus": 1, "memory_gib": 2}
    return body


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"proof": None}, "unsigned: no proof of its price"),
        ({"proof": "a.b.c"}, "forged: its proof cannot be read"),
        ({"price": {"amount": "0.01", "currency": "USD"}}, "forged: price is not what was signed"),
        ({"resources": {"vcpus": 64, "memory_gib": 256}}, "forged: resources is not what was signed"),
    ],
)
def test_an_offer_that_is_not_proved(clock: ManualClock, fields: Body, reason: str) -> None:
    book = _provider(clock, _on_the_bad_offer(**fields)).offer_book(QUERY)
    assert [offer.id for offer in book.offers] == [f"tiny/{GOOD}"]
    assert [(one.offer, one.provider) for one in book.rejections] == [(f"tiny/{BAD}", "tiny")]
    assert book.rejections[0].reason.startswith(reason)


def test_an_offer_larger_than_its_type(clock: ManualClock) -> None:
    book = _provider(clock, _catalogue_says_smaller).offer_book(QUERY)
    assert book.offers == ()
    assert book.rejections[0].reason == "lying size: 2 vCPU, 4 GiB offered as m.small of 1 vCPU, 2 GiB"


def test_a_network_without_a_catalogue_may_not_contradict_itself(clock: ManualClock) -> None:
    twice_as_large = Resources(vcpus=4, memory_gib=8)
    lie = Listing(**{**vars(a_listing(BAD)), "resources": twice_as_large})
    honest = served(a_network(clock, [a_listing(GOOD), lie]), clock)

    def no_catalogue(path: str, body: Body) -> Body:
        return {} if path == "/v1/shard-types" else body

    book = NetworkProvider(SETTINGS, clock=clock, transport=Lying(honest, no_catalogue)).offer_book(QUERY)
    assert [offer.id for offer in book.offers] == [f"tiny/{GOOD}"]
    assert book.rejections[0].reason == "lying size: 4 vCPU, 8 GiB offered as m.small of 2 vCPU, 4 GiB"


def test_a_network_that_publishes_no_keys(clock: ManualClock) -> None:
    book = _provider(clock, lambda path, body: {} if path == "/v1/keys" else body).offer_book(QUERY)
    assert book.offers == ()
    assert {one.reason for one in book.rejections} == {"forged: signed with a key that the network does not publish"}


class Replaying(httpx.BaseTransport):
    """Answers every quote with the first one it saw."""

    def __init__(self, honest: httpx.BaseTransport) -> None:
        self._honest = honest
        self._first: bytes | None = None

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = self._honest.handle_request(request)
        if request.url.path != "/v1/quotes":
            return answer
        self._first = self._first or answer.read()
        return httpx.Response(201, content=self._first)


def test_a_replayed_quote(clock: ManualClock) -> None:
    network = a_network(clock)
    provider = NetworkProvider(SETTINGS, clock=clock, transport=Replaying(served(network, clock)))
    offer = provider.offers(QUERY)[0]
    assert provider.quote(offer, 1, DAY).proof
    with pytest.raises(ProviderAnswerInvalid, match="replayed: the signature answers another request"):
        provider.quote(offer, 1, DAY)


def _quoting(**fields: object) -> Callable[[str, Body], Body]:
    return lambda path, body: {**body, **fields} if path == "/v1/quotes" else body


def _expired_long_ago(path: str, body: Body) -> Body:
    return {**body, "expires_at": (START - timedelta(days=1)).isoformat()} if path == "/v1/quotes" else body


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_quoting(proof=None), "unsigned"),
        (_quoting(unit_price={"amount": "0.04", "currency": "USD"}), "forged: unit price"),
        (_expired_long_ago, "forged: expires at"),
    ],
)
def test_a_quote_that_is_not_proved(clock: ManualClock, change: Callable[[str, Body], Body], reason: str) -> None:
    provider = _provider(clock, change)
    with pytest.raises(ProviderAnswerInvalid, match=reason):
        provider.quote(provider.offers(QUERY)[0], 1, DAY)


def test_a_quote_for_another_term(clock: ManualClock) -> None:
    """Signed and all, but an answer to something else: a proxy that sends what it likes."""
    network = a_network(clock)
    honest = served(network, clock)
    week = {"start": START.isoformat(), "end": (START + timedelta(days=7)).isoformat()}

    def twist(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/quotes":
            body = {**json.loads(request.content), "term": week}
            headers = {name: value for name, value in request.headers.items() if name != "content-length"}
            request = httpx.Request("POST", request.url, headers=headers, content=json.dumps(body))
        return honest.handle_request(request)

    provider = NetworkProvider(SETTINGS, clock=clock, transport=httpx.MockTransport(twist))
    with pytest.raises(ProviderAnswerInvalid, match="replayed: the quote is for another term"):
        provider.quote(provider.offers(QUERY)[0], 1, DAY)


def test_one_promise_answers_one_request(clock: ManualClock) -> None:
    transport = served(a_network(clock), clock)
    provider = NetworkProvider(SETTINGS, clock=clock, transport=transport)
    offer: Offer = provider.offers(QUERY)[0]
    first = provider.propose(offer, 1, offer.price, DAY, key="k", round_number=1)
    clock.advance(timedelta(seconds=30))
    resumed = Interval(start=clock.now(), end=clock.now() + timedelta(days=1))
    assert provider.propose(offer, 1, offer.price, resumed, key="k", round_number=1) == first

    def replay(request: httpx.Request) -> httpx.Response:
        """Every conversation is answered with the first one."""
        if request.url.path == "/v1/negotiations":
            request.headers["Idempotency-Key"] = "k"
        return transport.handle_request(request)

    fooled = NetworkProvider(SETTINGS, clock=clock, transport=httpx.MockTransport(replay))
    assert fooled.propose(offer, 1, offer.price, DAY, key="one", round_number=1).quote == first.quote
    with pytest.raises(ProviderAnswerInvalid, match=r"replayed: quote .* answered another request"):
        fooled.propose(offer, 1, offer.price, DAY, key="two", round_number=1)


# -- whose signature


class Remembered:
    """A KeyMemory for as long as the test lasts."""

    def __init__(self) -> None:
        self.known: dict[str, frozenset[str]] = {}
        self.asked = 0

    def meet(self, provider: str, keys: Collection[str]) -> frozenset[str]:
        self.asked += 1
        return self.known.setdefault(provider, frozenset(keys))


def _signed_by(signer: Signer, clock: ManualClock, offers: int = 1) -> httpx.BaseTransport:
    listings = [a_listing(f"lot{number}") for number in range(offers)]
    return served(Exchange(listings, Terms("tiny"), clock=clock, signer=signer), clock)


class Swapped(httpx.BaseTransport):
    """One network today, another tomorrow, at the same address."""

    def __init__(self, now: httpx.BaseTransport) -> None:
        self.now = now

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self.now.handle_request(request)


OURS, THEIRS = Signer("tiny"), Signer("tiny")
(OUR_KEY,), (THEIR_KEY,) = ([key.kid for key in signer.keys] for signer in (OURS, THEIRS))


def test_a_pinned_key_is_the_only_one_that_counts(clock: ManualClock) -> None:
    pinned = SETTINGS.model_copy(update={"signing_keys": (OUR_KEY,)})
    good = NetworkProvider(pinned, clock=clock, transport=_signed_by(OURS, clock))
    offer = good.offers(QUERY)[0]
    assert good.quote(offer, 1, DAY).proof
    bad = NetworkProvider(pinned, clock=clock, transport=_signed_by(THEIRS, clock))
    book = bad.offer_book(QUERY)
    assert book.offers == ()
    reason = f"wrong key: signed with {THEIR_KEY}, which providers.tiny.signing_keys does not name"
    assert [one.reason for one in book.rejections] == [reason]
    with pytest.raises(ProviderAnswerInvalid, match=reason):
        bad.quote(offer, 1, DAY)


def test_a_key_that_calls_itself_by_the_pinned_name_is_not_it(clock: ManualClock) -> None:
    """Its kid is what a network says; the thumbprint is what the key is."""

    def renamed(path: str, body: Body) -> Body:
        return {"keys": [{**key, "kid": OUR_KEY} for key in body["keys"]]} if path == "/v1/keys" else body

    impostor = Signer("tiny")
    impostor._header["kid"] = OUR_KEY
    pinned = SETTINGS.model_copy(update={"signing_keys": (OUR_KEY,)})
    provider = NetworkProvider(pinned, clock=clock, transport=Lying(_signed_by(impostor, clock), renamed))
    book = provider.offer_book(QUERY)
    assert book.offers == ()
    assert book.rejections[0].reason == "forged: signed with a key that the network does not publish"
    assert provider.signing_keys() != [OUR_KEY]


def test_the_first_key_is_trusted_and_another_one_refused_until_it_is_accepted(clock: ManualClock) -> None:
    memory, network = Remembered(), Swapped(_signed_by(OURS, clock))
    provider = NetworkProvider(SETTINGS, clock=clock, transport=network)
    provider.remember_keys_in(memory)
    offer = provider.offers(QUERY)[0]
    assert memory.known == {"tiny": {OUR_KEY}}
    network.now = _signed_by(THEIRS, clock)
    book = provider.offer_book(QUERY)
    assert book.offers == ()
    reason = book.rejections[0].reason
    assert reason.startswith(f"wrong key: signed with {THEIR_KEY}, not with a key that tiny is known by")
    assert reason.endswith(f"shardwright network accept tiny {THEIR_KEY}")
    with pytest.raises(ProviderAnswerInvalid, match="network accept"):
        provider.quote(offer, 1, DAY)
    memory.known["tiny"] = frozenset([THEIR_KEY])
    assert len(provider.offers(QUERY)) == 1, "accepted while it runs"
    network.now = _signed_by(OURS, clock)
    assert provider.offers(QUERY) == (), "and the old one counts no more"


def test_pinned_keys_need_no_memory(clock: ManualClock) -> None:
    memory = Remembered()
    pinned = SETTINGS.model_copy(update={"signing_keys": (OUR_KEY,)})
    provider = NetworkProvider(pinned, clock=clock, transport=_signed_by(OURS, clock))
    provider.remember_keys_in(memory)
    assert provider.offers(QUERY)
    assert memory.asked == 0


def test_a_wrong_key_is_asked_about_once_a_list_not_once_an_offer(clock: ManualClock) -> None:
    memory, transport = Remembered(), _signed_by(THEIRS, clock, offers=20)
    memory.known["tiny"] = frozenset([OUR_KEY])
    provider = NetworkProvider(SETTINGS, clock=clock, transport=transport)
    provider.remember_keys_in(memory)
    assert len(provider.offer_book(QUERY).rejections) == 20
    assert memory.asked == 1
    keys_read = [one for one in transport.requests if one.url.path == "/v1/keys"]  # type: ignore[attr-defined]
    assert len(keys_read) == 1


def test_a_published_key_that_is_none_harms_nobody(clock: ManualClock) -> None:
    def with_rubbish(path: str, body: Body) -> Body:
        if path == "/v1/keys":
            body["keys"].insert(0, {"kty": "OKP", "crv": "Ed25519", "x": "!", "kid": "broken"})
        return body

    provider = NetworkProvider(SETTINGS, clock=clock, transport=Lying(_signed_by(OURS, clock), with_rubbish))
    assert len(provider.offers(QUERY)) == 1
    assert provider.signing_keys() == (OUR_KEY,)
