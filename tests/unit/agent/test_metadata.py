"""How each kind of provider wants to be asked; what the sandbox answers is tested beside it (test_metadata there)."""

import asyncio
from collections.abc import Callable

import httpx
import pytest

from agent.config import MetadataFlavour
from agent.metadata import MetadataAddress
from engine.errors import ConfigurationError, ProviderAnswerInvalid, ProviderUnavailable
from engine.model.attestation import ten_digits

Handler = Callable[[httpx.Request], httpx.Response]


def identity(flavour: MetadataFlavour, handler: Handler) -> str:
    async def once() -> str:
        metadata = MetadataAddress("http://metadata", flavour, httpx.MockTransport(handler))
        try:
            return await metadata.identity("1.c")
        finally:
            await metadata.close()

    return asyncio.run(once())


def test_a_token_that_has_run_out_is_fetched_anew() -> None:
    tokens = ["OLD", "NEW"]

    def serve(request: httpx.Request) -> httpx.Response:
        if request.method == "PUT":
            return httpx.Response(200, text=tokens.pop(0))
        assert request.url.path == "/latest/dynamic/instance-identity/rsa2048"
        fresh = request.headers["X-aws-ec2-metadata-token"] == "NEW"
        return httpx.Response(200, text="DOCUMENT") if fresh else httpx.Response(401)

    assert identity(MetadataFlavour.AWS, serve) == "DOCUMENT"
    assert tokens == []


def test_google_and_azure_are_asked_with_the_challenge() -> None:
    asked: list[httpx.Request] = []

    def serve(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json={"encoding": "pkcs7", "signature": "SIGNED"})

    identity(MetadataFlavour.GCP, serve)
    assert identity(MetadataFlavour.AZURE, serve) == "SIGNED"
    assert dict(asked[0].url.params) == {"audience": "shardwright-join-1.c", "format": "full"}
    assert asked[0].headers["Metadata-Flavor"] == "Google"
    assert asked[1].url.params["nonce"] == ten_digits("1.c")
    assert asked[1].headers["Metadata"] == "true"


@pytest.mark.parametrize("flavour", [MetadataFlavour.AWS, MetadataFlavour.GCP, MetadataFlavour.AZURE])
def test_an_address_that_cannot_answer_now_may_be_asked_again(flavour: MetadataFlavour) -> None:
    with pytest.raises(ProviderUnavailable):
        identity(flavour, lambda _request: httpx.Response(503))


def test_an_answer_without_a_signature_is_named() -> None:
    with pytest.raises(ProviderAnswerInvalid):
        identity(MetadataFlavour.AZURE, lambda _request: httpx.Response(200, text="<html>"))


def test_a_network_vouches_for_nobody() -> None:
    with pytest.raises(ConfigurationError, match="join_token"):
        identity(MetadataFlavour.NETWORK, lambda _request: httpx.Response(200))
