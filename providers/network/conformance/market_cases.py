"""Who may ask, how refusals look, what is offered, and what a quote promises."""

from datetime import timedelta
from decimal import Decimal

import httpx

from providers.network import wire
from providers.network.conformance.base import Cases, NotOffered, require
from providers.network.conformance.probe import Probe, told
from providers.network.description import frozen
from providers.network.signing import Unproven, Verifier
from providers.network.wire import ProblemCode, QuoteKind

case = Cases()


@case("description", "OpenAPI 3.1 at /openapi.json without a token, with every operation of version 1")
def description(probe: Probe) -> str:
    answer = probe.get("/openapi.json", token=None)
    require(answer.status_code == httpx.codes.OK, told(answer))
    try:
        said = answer.json()
        paths, version = said["paths"], str(said["openapi"])
    except (ValueError, KeyError, TypeError):
        require(False, "not an OpenAPI document")
        raise
    require(version.startswith("3.1"), f"OpenAPI {version}")
    wanted = {(path, verb) for path, verbs in frozen()["paths"].items() for verb in verbs}
    missing = sorted(f"{verb.upper()} {path}" for path, verb in wanted if verb not in paths.get(path, {}))
    require(not missing, f"without {', '.join(missing[:3])}")
    return f"OpenAPI {version}, {len(wanted)} operations"


@case("terms", "currency, times, rate limit and powers of the network, of API version 1")
def terms(probe: Probe) -> str:
    found = probe.terms
    require(found.api_version.split(".")[0] == wire.API_VERSION, f"version {found.api_version}")
    return f"{found.name} trades in {found.currency}"


@case("no token", "401 problem+json with WWW-Authenticate")
def no_token(probe: Probe) -> str:
    answer = probe.get("/v1/offers", token=None)
    seen = probe.problem(answer, 401, ProblemCode.UNAUTHORIZED)
    require("www-authenticate" in answer.headers, "no WWW-Authenticate")
    return seen


@case("wrong token", "401 problem+json that does not repeat the token")
def wrong_token(probe: Probe) -> str:
    answer = probe.get("/v1/offers", token="not-one-of-yours")  # noqa: S106 (a wrong one, on purpose)
    seen = probe.problem(answer, 401, ProblemCode.UNAUTHORIZED)
    require("not-one-of-yours" not in answer.text, "the token is repeated")
    return seen


@case("unknown things", "404 problem+json with code not_found")
def unknown_things(probe: Probe) -> str:
    paths = (
        "/v1/holds/no-such",
        "/v1/reservations/no-such",
        "/v1/negotiations/no-such",
        "/v1/reverse-auctions/no-such",
    )
    return ", ".join({probe.problem(probe.get(path), 404, ProblemCode.NOT_FOUND) for path in paths})


@case("malformed requests", "400 or 422 problem+json that does not repeat what was sent")
def malformed_requests(probe: Probe) -> str:
    good = {"offer_id": "any", "quantity": 1, "term": probe.term()}
    bad = [
        {**good, "quantity": 0},
        {**good, "quantity": "1"},
        {**good, "surprise": "marker-5309"},
        {**good, "term": {"start": "2026-01-01T00:00:00", "end": "2026-01-02T00:00:00"}},
        {},
    ]
    for body in bad:
        answer = probe.post("/v1/quotes", body)
        probe.problem(answer, (400, 422), ProblemCode.INVALID_REQUEST)
        require("marker-5309" not in answer.text, "what was sent is repeated")
    return f"{len(bad)} refused"


@case("missing idempotency key", "a purchase without an Idempotency-Key is refused as problem+json")
def missing_key(probe: Probe) -> str:
    return probe.problem(probe.post("/v1/holds", {"quote_id": "any", "quantity": 1}), (400, 422))


@case("offers", "unique ids, prices above 0 in the network's currency, expiry ahead, delivery window in order")
def offers(probe: Probe) -> str:
    found = probe.offers()
    now = probe.clock.now()
    if not found:
        raise NotOffered("no offers now")
    require(len({one.offer_id for one in found}) == len(found), "an id is used twice")
    for one in found:
        require(one.price.currency == probe.terms.currency, f"{one.offer_id} in {one.price.currency}")
        require(one.price.amount > 0 or one.auction_id is not None, f"{one.offer_id} at {one.price.amount}")
        require(one.price.amount >= 0, f"{one.offer_id} at {one.price.amount}")
        require(one.resources.vcpus > 0 and one.resources.memory_gib > 0, f"{one.offer_id} of no size")
        require(one.available is None or one.available >= 0, f"{one.offer_id} has {one.available}")
        require(one.expires_at > now - _SKEW, f"{one.offer_id} expired at {one.expires_at}")
        require(one.price_at < now + _SKEW, f"{one.offer_id} priced for {one.price_at}")
        require(one.delivery.earliest <= one.delivery.latest, f"{one.offer_id} is delivered before it starts")
    return f"{len(found)} offers"


@case("signed offers", "every offer carries a proof that fits a key of /v1/keys and says what the offer says")
def signed_offers(probe: Probe) -> str:
    verifier, found, now = _verifier(probe), probe.offers(), probe.clock.now()
    for one in found:
        try:
            verifier.check_offer(one, now)
        except Unproven as problem:
            require(False, f"{one.offer_id}: {problem.reason}")
    return f"{len(found)} signatures fit"


@case("shard types", "every offer has the size that /v1/shard-types gives its type")
def sizes(probe: Probe) -> str:
    kinds = probe.read(probe.get("/v1/shard-types"), wire.ShardTypeList).shard_types
    sizes = {kind.instance_type: kind.resources for kind in kinds}
    for one in probe.offers():
        require(one.instance_type in sizes, f"{one.offer_id} is of the unlisted type {one.instance_type}")
        require(one.resources == sizes[one.instance_type], f"{one.offer_id} has another size than its type")
    return f"{len(sizes)} types"


@case("filters", "min_vcpus leaves out what is smaller")
def filters(probe: Probe) -> str:
    largest = max((one.resources.vcpus for one in probe.offers()), default=0.0)
    answer = probe.get("/v1/offers", params={"min_vcpus": largest})
    found = probe.read(answer, wire.OfferList).offers
    require(all(one.resources.vcpus >= largest for one in found), "smaller offers came too")
    return f"{len(found)} with {largest:g} vCPU or more"


@case("quote", "the posted price, signed, for this very request (its nonce comes back)")
def quote(probe: Probe) -> str:
    offer = probe.posted()
    given = probe.quote(offer, nonce="check-nonce-1")
    require(given.offer_id == offer.offer_id and given.quantity == 1, f"for {given.quantity} of {given.offer_id}")
    require(given.kind is QuoteKind.ASK, f"of kind {given.kind.value}")
    now_posted = next((one.price for one in probe.offers() if one.offer_id == offer.offer_id), offer.price)
    require(given.unit_price in (offer.price, now_posted), f"{given.unit_price.amount}, posted {offer.price.amount}")
    try:
        _verifier(probe).check_quote(given, probe.clock.now(), nonce="check-nonce-1")
    except Unproven as problem:
        require(False, problem.reason)
    return f"{given.unit_price.amount} {given.unit_price.currency}, signed"


@case("expired quote", "410 quote_expired when it is held too late")
def expired_quote(probe: Probe) -> str:
    given = probe.quote(probe.posted(), lasts_seconds=1)
    probe.wait((given.expires_at - probe.clock.now()).total_seconds() + 0.5)
    answer = probe.post("/v1/holds", {"quote_id": given.quote_id, "quantity": 1}, key=given.quote_id)
    return probe.problem(answer, 410, ProblemCode.QUOTE_EXPIRED)


@case("quotes that cannot be", "404 for an unknown offer, 400 for a term in the past, 409 for more than there is")
def impossible_quotes(probe: Probe) -> str:
    offer, now = probe.posted(), probe.clock.now()
    past = {"start": (now - timedelta(days=2)).isoformat(), "end": (now - timedelta(days=1)).isoformat()}
    good = {"offer_id": offer.offer_id, "quantity": 1, "term": probe.term()}
    seen = [
        probe.problem(probe.post("/v1/quotes", {**good, "offer_id": "no-such"}), 404, ProblemCode.NOT_FOUND),
        probe.problem(probe.post("/v1/quotes", {**good, "term": past}), (400, 422), ProblemCode.INVALID_REQUEST),
    ]
    if offer.available is not None:
        answer = probe.post("/v1/quotes", {**good, "quantity": offer.available + 1})
        seen.append(probe.problem(answer, 409, ProblemCode.INSUFFICIENT_CAPACITY))
    return ", ".join(seen)


@case("firm price", "a hold has the price of its quote, even where the posted price has moved")
def firm_price(probe: Probe) -> str:
    given = probe.firm()
    answer = probe.post("/v1/holds", {"quote_id": given.quote_id, "quantity": 1}, key=f"firm:{given.quote_id}")
    held = probe.keep(probe.read(answer, wire.WireHold))
    require(held.unit_price == given.unit_price, f"quoted {given.unit_price.amount}, held {held.unit_price.amount}")
    return f"{_plain(held.unit_price.amount)} both times"


_SKEW = timedelta(minutes=5)


def _verifier(probe: Probe) -> Verifier:
    return Verifier(lambda: probe.read(probe.get("/v1/keys", token=None), wire.KeyList).keys)


def check_signed(probe: Probe, given: wire.WireQuote) -> None:
    """Raises Unmet."""
    try:
        _verifier(probe).check_quote(given, probe.clock.now())
    except Unproven as problem:
        require(False, problem.reason)


def _plain(amount: Decimal) -> str:
    return f"{amount:f}"
