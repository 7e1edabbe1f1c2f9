from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import OctKey

from engine.clock import ManualClock
from engine.errors import AuthenticationFailed, ConfigurationError, ProviderAnswerInvalid
from engine.model.attestation import AttestedInstance, audience
from providers.gcp_attestation import GcpAttestor
from providers.rest import RestApi
from tests.instance_identity import ACCOUNT, NOW, another_cloud, settings, signers

CHALLENGE = "1.abc"
INSTANCE = {"instance_id": "42", "project_id": ACCOUNT, "zone": "us-central1-a"}
KEYS_URL = "https://keys.example/certs"


def token(challenge: str = CHALLENGE, said: dict[str, str] = INSTANCE) -> str:
    return signers().google_token(audience(challenge), said, NOW)


def attested(evidence: str, *, after: timedelta = timedelta(0)) -> AttestedInstance:
    return GcpAttestor(settings("gcp"), clock=ManualClock(NOW + after)).attested(evidence, CHALLENGE)


def test_an_identity_token_says_which_instance_it_is() -> None:
    assert attested(token()) == AttestedInstance(instance_id="42", account=ACCOUNT, region="us-central1")


def test_a_token_for_another_challenge_is_refused() -> None:
    with pytest.raises(AuthenticationFailed, match="another challenge"):
        attested(token("1.abd"))


def test_an_expired_token_and_one_from_the_future_are_refused() -> None:
    with pytest.raises(AuthenticationFailed, match="has expired"):
        attested(token(), after=timedelta(hours=1))
    with pytest.raises(AuthenticationFailed, match="future"):
        attested(token(), after=-timedelta(minutes=2))


def test_a_token_of_another_cloud_is_refused() -> None:
    with pytest.raises(AuthenticationFailed, match="no known key"):
        attested(another_cloud().google_token(audience(CHALLENGE), INSTANCE, NOW))


def test_a_token_without_the_instances_details_is_refused() -> None:
    with pytest.raises(AuthenticationFailed, match="details"):
        attested(token(said={}))


@pytest.mark.parametrize("algorithm", ["none", "HS256"])
def test_a_token_that_is_not_signed_with_rsa_is_refused(algorithm: str) -> None:
    """ "none", and the public key used as a shared secret: the two classic forgeries."""
    header, claims, _ = token().split(".")
    if algorithm == "none":
        forged = f"eyJhbGciOiJub25lIn0.{claims}."
    else:
        path = signers().keys_of("gcp")
        assert path is not None
        body = {"iss": "https://accounts.google.com", "aud": audience(CHALLENGE), "iat": 1, "exp": 2_000_000_000}
        forged = jwt.encode({"alg": "HS256"}, body, OctKey.import_key(path.read_bytes()), algorithms=["HS256"])
    with pytest.raises(AuthenticationFailed, match="no known key"):
        attested(forged)
    assert header


@pytest.mark.parametrize("evidence", ["", "a.b.c", "...", "é"])
def test_rubbish_is_refused_by_name(evidence: str) -> None:
    with pytest.raises(AuthenticationFailed, match="signed identity is refused"):
        attested(evidence)


def test_keys_at_a_url_are_read_when_a_token_names_a_new_one_and_at_most_once_a_minute() -> None:
    asked: list[str] = []
    old, new = another_cloud().keys_of("gcp"), signers().keys_of("gcp")
    assert old is not None
    assert new is not None
    published = [old.read_bytes(), new.read_bytes()]

    def serve(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(200, content=published.pop(0))

    clock = ManualClock(NOW)
    configured = settings("gcp", KEYS_URL)
    api = RestApi(configured, clock, transport=httpx.MockTransport(serve))
    attestor = GcpAttestor(configured, clock=clock, api=api)
    for _ in range(3):
        with pytest.raises(AuthenticationFailed, match="no known key"):
            attestor.attested(token(), CHALLENGE)
    clock.advance(timedelta(seconds=61))
    for _ in range(3):
        assert attestor.attested(token(), CHALLENGE).instance_id == "42"
    assert asked == [KEYS_URL, KEYS_URL]


def test_a_file_that_is_no_key_set_is_named_before_anybody_joins(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text("{}")
    for name in ("keys.json", "nothing.json"):
        with pytest.raises(ConfigurationError, match=r"providers\.gcp\.attestation_keys"):
            GcpAttestor(settings("gcp", str(tmp_path / name)), clock=ManualClock(NOW))


def test_an_address_without_keys_is_not_the_nodes_fault() -> None:
    clock, configured = ManualClock(NOW), settings("gcp", KEYS_URL)
    transport = httpx.MockTransport(lambda _request: httpx.Response(200, json={"keys": []}))
    attestor = GcpAttestor(configured, clock=clock, api=RestApi(configured, clock, transport=transport))
    with pytest.raises(ProviderAnswerInvalid, match="holds no keys"):
        attestor.attested(token(), CHALLENGE)
