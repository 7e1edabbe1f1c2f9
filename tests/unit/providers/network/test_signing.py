from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal

import pytest
from joserfc import jws
from joserfc.jwk import OctKey, OKPKey

from engine.clock import ManualClock
from providers.network import wire
from providers.network.signing import Signer, Unproven, Verifier
from tests.unit.providers.network.networks import ANY, START, TENANT, a_network, money, quoted

LATER = START + timedelta(seconds=1)


@pytest.fixture
def signer() -> Signer:
    return Signer("tiny")


def _quote() -> wire.WireQuote:
    return quoted(a_network(ManualClock(START)))


def _offer() -> wire.WireOffer:
    return a_network(ManualClock(START)).offers(ANY)[0]


def test_what_was_signed_is_believed(signer: Signer) -> None:
    verifier = Verifier(lambda: signer.keys)
    verifier.check_offer(signer.sign_offer(_offer(), START), LATER)
    verifier.check_quote(signer.sign_quote(_quote(), START, buyer=TENANT, nonce="n"), LATER, nonce="n")


def test_a_signature_proves_who_promised_what_to_whom(signer: Signer) -> None:
    signed = signer.sign_quote(_quote(), START, buyer=TENANT)
    (key,) = signer.keys
    proof = jws.deserialize_compact(
        signed.proof or "", OKPKey.import_key({"kty": key.kty, "crv": key.crv, "x": key.x}), algorithms=["Ed25519"]
    )
    claims = wire.QuoteClaims.model_validate_json(proof.payload)
    assert (claims.issuer, claims.buyer, claims.unit_price) == ("tiny", TENANT, money("0.05"))
    assert proof.headers()["kid"] == key.kid


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"unit_price": money("0.051")}, "forged: unit price"),
        ({"unit_price": money("0.05", "EUR")}, "forged: unit price"),
        ({"quantity": 2}, "forged: quantity"),
        ({"offer_id": "other"}, "forged: offer id"),
        ({"expires_at": START + timedelta(days=9)}, "forged: expires at"),
        ({"proof": None}, "unsigned"),
        ({"proof": "no.jws"}, "forged"),
        ({"proof": "a.b.c"}, "forged"),
    ],
)
def test_a_quote_that_says_something_else(signer: Signer, change: dict[str, object], reason: str) -> None:
    signed = signer.sign_quote(_quote(), START, buyer=TENANT)
    with pytest.raises(Unproven, match=rf"^{reason}"):
        Verifier(lambda: signer.keys).check_quote(signed.model_copy(update=change), LATER)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"price": money("0.01")}, "forged: price"),
        ({"resources": wire.WireResources(vcpus=64, memory_gib=4)}, "forged: resources"),
        ({"performance": 2.0}, "forged: performance"),
    ],
)
def test_an_offer_that_says_something_else(signer: Signer, change: dict[str, object], reason: str) -> None:
    signed = signer.sign_offer(_offer(), START)
    with pytest.raises(Unproven, match=rf"^{reason}"):
        Verifier(lambda: signer.keys).check_offer(signed.model_copy(update=change), LATER)


def test_amounts_and_times_are_compared_as_values_not_as_text(signer: Signer) -> None:
    signed = signer.sign_quote(_quote(), START, buyer=TENANT)
    same = signed.model_copy(update={"unit_price": money("0.0500")})
    Verifier(lambda: signer.keys).check_quote(same, LATER)


def test_an_old_answer_is_a_replay(signer: Signer) -> None:
    verifier = Verifier(lambda: signer.keys)
    signed = signer.sign_quote(_quote(), START, buyer=TENANT, nonce="mine")
    with pytest.raises(Unproven, match=r"^replayed: the signature answers another request"):
        verifier.check_quote(signed, LATER, nonce="another")
    with pytest.raises(Unproven, match=r"^expired or replayed: .* for a time that is over"):
        verifier.check_quote(signed, START + timedelta(minutes=5))
    with pytest.raises(Unproven, match=r"^clock skew"):
        verifier.check_quote(signed, START - timedelta(minutes=6))


def test_somebody_elses_key(signer: Signer) -> None:
    signed = Signer("tiny").sign_quote(_quote(), START, buyer=TENANT)
    with pytest.raises(Unproven, match="a key that the network does not publish"):
        Verifier(lambda: signer.keys).check_quote(signed, LATER)


def _hmac_with_the_public_key(signer: Signer, claims: str) -> str:
    (key,) = signer.keys
    return jws.serialize_compact({"alg": "HS256", "kid": key.kid}, claims, OctKey.import_key(key.x))


def _without_a_signature(signer: Signer, claims: str) -> str:
    return jws.serialize_compact({"alg": "none", "kid": signer.keys[0].kid}, claims, None, algorithms=["none"])


@pytest.mark.parametrize("forge", [_hmac_with_the_public_key, _without_a_signature])
def test_another_algorithm_is_not_taken(signer: Signer, forge: Callable[[Signer, str], str]) -> None:
    signed = signer.sign_quote(_quote(), START, buyer=TENANT)
    claims = jws.extract_compact((signed.proof or "").encode()).payload.decode()
    with pytest.raises(Unproven, match=r"^forged"):
        Verifier(lambda: signer.keys).check_quote(signed.model_copy(update={"proof": forge(signer, claims)}), LATER)


def test_keys_are_read_once_and_again_when_they_changed(signer: Signer) -> None:
    asked = []
    current = [signer]

    def fetch() -> tuple[wire.VerificationKey, ...]:
        asked.append(1)
        return current[0].keys

    verifier = Verifier(fetch)
    for _ in range(3):
        verifier.check_quote(signer.sign_quote(_quote(), START, buyer=TENANT), LATER)
    assert len(asked) == 1
    current[0] = Signer("tiny")
    verifier.check_quote(current[0].sign_quote(_quote(), START, buyer=TENANT), LATER)
    assert len(asked) == 2


def test_a_reference_network_signs_everything_it_prices() -> None:
    clock = ManualClock(START)
    network = a_network(clock)
    verifier = Verifier(lambda: network.keys().keys)
    verifier.check_offer(network.offers(ANY)[0], LATER)
    verifier.check_quote(quoted(network), LATER)
    network.change_price("lot", Decimal("0.06"))
    verifier.check_offer(network.offers(ANY)[0], LATER)
