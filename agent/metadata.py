"""The instance's metadata address: how each kind of provider wants to be asked there, and its word for who we are."""

from collections.abc import Mapping

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from agent.config import MetadataFlavour
from engine.errors import ConfigurationError, ProviderAnswerInvalid, ProviderUnavailable
from engine.model.attestation import audience, ten_digits

WELL_KNOWN_URL = {
    MetadataFlavour.AWS: "http://169.254.169.254",
    MetadataFlavour.GCP: "http://169.254.169.254",
    MetadataFlavour.AZURE: "http://169.254.169.254",
}
"""A third-party network's address is part of the agent's configuration."""
_TIMEOUT = httpx.Timeout(3.0)
_AWS_TOKEN_SECONDS = 21_600
_HEADERS = {MetadataFlavour.GCP: {"Metadata-Flavor": "Google"}, MetadataFlavour.AZURE: {"Metadata": "true"}}
_AZURE_ATTESTED_VERSION = "2020-09-01"


class _AzureAttested(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    signature: str


class MetadataAddress:
    """Use from one event loop; ``close`` when done."""

    def __init__(self, url: str, flavour: MetadataFlavour, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.flavour = flavour
        self._http = httpx.AsyncClient(base_url=url.rstrip("/"), timeout=_TIMEOUT, trust_env=False, transport=transport)
        self._aws_token: str | None = None

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> httpx.Response:
        """Any answer but a server's failure. Raises ProviderUnavailable."""
        try:
            answer = await self._http.get(path, params=dict(params or {}), headers=await self._headers())
            if answer.status_code == 401 and self._aws_token is not None:
                self._aws_token = None  # it has run out, or belonged to the instance before a restore
                answer = await self._http.get(path, params=dict(params or {}), headers=await self._headers())
        except httpx.HTTPError as problem:
            raise ProviderUnavailable("the metadata address does not answer", why=str(problem)) from problem
        return answer

    async def identity(self, challenge: str) -> str:
        """What the provider signs about this instance, answering ``challenge`` where it takes one.

        Raises ProviderUnavailable, ProviderAnswerInvalid, or ConfigurationError for a provider that signs nothing.
        """
        if self.flavour is MetadataFlavour.AWS:
            return ok(await self.get("/latest/dynamic/instance-identity/rsa2048")).text
        if self.flavour is MetadataFlavour.GCP:
            path = "/computeMetadata/v1/instance/service-accounts/default/identity"
            return ok(await self.get(path, {"audience": audience(challenge), "format": "full"})).text
        if self.flavour is MetadataFlavour.AZURE:
            params = {"api-version": _AZURE_ATTESTED_VERSION, "nonce": ten_digits(challenge)}
            answer = ok(await self.get("/metadata/attested/document", params))
            try:
                return _AzureAttested.model_validate_json(answer.content).signature
            except ValidationError as problem:
                raise ProviderAnswerInvalid("the metadata address answers without a signed document") from problem
        raise ConfigurationError(
            f"a provider of kind {self.flavour} does not vouch for its instances",
            next_step="give the agent a join_token",
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def _headers(self) -> Mapping[str, str]:
        if self.flavour is not MetadataFlavour.AWS:
            return _HEADERS.get(self.flavour, {})
        if self._aws_token is None:
            headers = {"X-aws-ec2-metadata-token-ttl-seconds": str(_AWS_TOKEN_SECONDS)}
            self._aws_token = ok(await self._http.put("/latest/api/token", headers=headers)).text
        return {"X-aws-ec2-metadata-token": self._aws_token}


def ok(answer: httpx.Response) -> httpx.Response:
    """Raises ProviderUnavailable for anything but 200."""
    if answer.status_code != 200:
        raise ProviderUnavailable("the metadata address does not answer", why=f"HTTP {answer.status_code}")
    return answer
