import json
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from google.auth import jwt
from pydantic import SecretStr

from engine.clock import ManualClock
from engine.errors import AuthenticationFailed, ConfigurationError, ProviderAnswerInvalid
from providers.base import ProviderSettings
from providers.gcp_auth import google_token
from providers.rest import RestApi, Token


class Entry:
    """A token endpoint that notes what it was sent."""

    def __init__(self, answer: httpx.Response | None = None) -> None:
        self.forms: list[dict[str, str]] = []
        self.urls: list[str] = []
        self._answer = answer or httpx.Response(200, json={"access_token": "ya29", "expires_in": 3600})

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.urls.append(str(request.url))
        self.forms.append({key: values[0] for key, values in parse_qs(request.content.decode()).items()})
        return self._answer


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime.now(UTC))


def token(clock: ManualClock, entry: Entry, **credentials: str) -> Token:
    given = {name: SecretStr(value) for name, value in credentials.items()}
    settings = ProviderSettings(name="g", kind="gcp", account="p", regions=("r",), credentials=given)
    return google_token(settings, RestApi(settings, clock, transport=httpx.MockTransport(entry)), clock)


def test_a_service_account_signs_for_itself(clock: ManualClock) -> None:
    key = generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    entry = Entry()
    account = {"client_email": "a@p.iam.gserviceaccount.com", "private_key": pem, "type": "service_account"}
    made = token(clock, entry, service_account_json=json.dumps(account))
    assert [made(), made()] == ["ya29", "ya29"]
    assert entry.urls == ["https://oauth2.googleapis.com/token"]
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    claims = jwt.decode(entry.forms[0]["assertion"], certs=public, audience=entry.urls[0])
    assert claims["iss"] == account["client_email"]
    assert claims["exp"] - claims["iat"] == 3600
    clock.advance(timedelta(hours=1))
    made()
    assert len(entry.forms) == 2


def test_a_refresh_token_is_exchanged(clock: ManualClock) -> None:
    entry = Entry()
    assert token(clock, entry, client_id="c", client_secret="s", refresh_token="r")() == "ya29"
    assert entry.forms[0] == {
        "grant_type": "refresh_token",
        "client_id": "c",
        "client_secret": "s",
        "refresh_token": "r",
    }


def test_a_given_token_is_used_as_it_is(clock: ManualClock) -> None:
    entry = Entry()
    assert token(clock, entry, access_token="mine")() == "mine"
    assert entry.forms == []


@pytest.mark.parametrize("given", [{}, {"client_id": "c"}, {"access_token": ""}, {"service_account_json": "{}"}])
def test_incomplete_credentials(clock: ManualClock, given: dict[str, str]) -> None:
    with pytest.raises(AuthenticationFailed):
        token(clock, Entry(), **given)


def test_a_key_that_is_none_is_not_shown(clock: ManualClock) -> None:
    key = json.dumps({"client_email": "a@b", "private_key": "-----BEGIN PRIVATE KEY-----\nsecret\n"})
    with pytest.raises(AuthenticationFailed) as caught:
        token(clock, Entry(), service_account_json=key)
    assert "secret" not in str(caught.value)


def test_an_assertion_is_not_sent_in_the_clear(clock: ManualClock) -> None:
    key = generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    account = {"client_email": "a@b", "private_key": pem, "token_uri": "http://tokens.example.com"}
    with pytest.raises(ConfigurationError):
        token(clock, Entry(), service_account_json=json.dumps(account))


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_refused_exchange(clock: ManualClock, status: int) -> None:
    entry = Entry(httpx.Response(status, json={"error": "invalid_grant", "error_description": "revoked"}))
    with pytest.raises(AuthenticationFailed, match="invalid_grant"):
        token(clock, entry, client_id="c", client_secret="s", refresh_token="r")()


def test_a_token_answer_that_is_rubbish(clock: ManualClock) -> None:
    with pytest.raises(ProviderAnswerInvalid):
        token(clock, Entry(httpx.Response(200, html="<p>")), client_id="c", client_secret="s", refresh_token="r")()
