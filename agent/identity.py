"""The node's key and certificate: joining on its provider's word or a token, renewing at half life, files for QEMU."""

import asyncio
import hashlib
import logging
import random
from datetime import datetime
from pathlib import Path

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import ValidationError

from agent import key_exchange
from agent.config import AgentConfig
from agent.epochs import write_durably
from agent.metadata import MetadataAddress
from agent.overlay_wire import OverlayRequest, OverlayView
from agent.peer import client_context
from agent.wire import (
    CONTROL_NAME,
    Certificate,
    Challenge,
    ChallengeRequest,
    HealthOrders,
    HealthRequest,
    HeldShard,
    JoinRequest,
    KeepRequest,
    LeaseGrant,
    LeaseRequest,
    NoticeReport,
    Problem,
    RenewRequest,
    Verdict,
)
from engine.clock import Clock
from engine.errors import AuthenticationFailed, ConfigurationError, ProviderAnswerInvalid, ProviderUnavailable
from engine.model.ids import ShardId
from engine.model.value import Value

_TIMEOUT = httpx.Timeout(30.0, connect=5.0)
"""The control plane asks the provider about us before it answers."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 15.0
_LOG = logging.getLogger("agent.identity")


class Identity:
    """Files under ``work/tls``: node.key (0600), node.pem, ca.pem, and the same under the names QEMU looks for.

    ``joined`` is the digest of the token that was used: a gateway that is given a new file joins anew, since its
    certificate is void.
    """

    def __init__(
        self, config: AgentConfig, clock: Clock, rng: random.Random, metadata: MetadataAddress | None = None
    ) -> None:
        """``metadata``: where the provider vouches for this instance; needed where no join token is configured."""
        self._config, self._clock, self._rng, self._metadata = config, clock, rng, metadata
        self.folder = config.work / "tls"
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.key_file, self.certificate_file, self.ca_file = (
            self.folder / "node.key",
            self.folder / "node.pem",
            self.folder / "ca.pem",
        )
        write_durably(self.ca_file, config.control_ca_pem.encode())

    def not_after(self) -> datetime | None:
        """The end of the present certificate, None without one."""
        if not self.certificate_file.exists():
            return None
        return x509.load_pem_x509_certificate(self.certificate_file.read_bytes()).not_valid_after_utc

    def usable(self) -> bool:
        end = self.not_after()
        return end is not None and end > self._clock.now()

    def half_life(self) -> datetime:
        """When to renew."""
        certificate = x509.load_pem_x509_certificate(self.certificate_file.read_bytes())
        return (
            certificate.not_valid_before_utc + (certificate.not_valid_after_utc - certificate.not_valid_before_utc) / 2
        )

    async def join(self, agent_url: str) -> None:
        """Trade a token or the provider's word for a certificate; tries until the control plane answers.

        Raises AuthenticationFailed, or ConfigurationError where there is neither.
        """
        if self.usable() and not self._has_new_token():
            return
        pause = _FIRST_PAUSE
        while True:
            try:
                request = await self._request(agent_url)
                self._install(await self._post("/v1/join", request, with_certificate=False))
                self._remember_token()
            except ProviderUnavailable as problem:
                _LOG.warning("cannot join yet: %s", problem)
                await asyncio.sleep(pause * self._rng.uniform(0.5, 1.0))
                pause = min(pause * 2, _LONGEST_PAUSE)
            else:
                return

    def _has_new_token(self) -> bool:
        token, joined = self._config.join_token, self.folder / "joined"
        return token is not None and joined.exists() and joined.read_text() != _digest(token.get_secret_value())

    def _remember_token(self) -> None:
        if self._config.join_token is not None:
            write_durably(self.folder / "joined", _digest(self._config.join_token.get_secret_value()).encode())

    async def _request(self, agent_url: str) -> JoinRequest:
        request = JoinRequest(
            node=self._config.node,
            csr_pem=self._csr(),
            agent_url=agent_url,
            underlay_address=self._config.underlay,
            capacity=self._config.capacity,
        )
        if self._config.join_token is not None:
            return request.model_copy(update={"token": self._config.join_token.get_secret_value()})
        if self._metadata is None:
            raise ConfigurationError("there is neither a join token nor a metadata address to be vouched for at")
        asked = ChallengeRequest(node=request.node, csr_pem=request.csr_pem)
        challenge = _challenge(await self._post("/v1/join/challenge", asked, with_certificate=False))
        evidence = await self._metadata.identity(challenge)
        return request.model_copy(update={"challenge": challenge, "evidence": evidence})

    async def renew(self) -> None:
        """Raises ProviderUnavailable (try again) or AuthenticationFailed."""
        self._install(await self._post("/v1/renew", RenewRequest(csr_pem=self._csr()), with_certificate=True))

    async def report_notice(self, notice: NoticeReport) -> None:
        await self._post(f"/v1/nodes/{self._config.node}/notices", notice, with_certificate=True)

    async def keep(self, shard: ShardId, request: KeepRequest) -> Verdict:
        """Ask the store for a shard that a move has left paused here. Raises ShardwrightError without an answer."""
        path = f"/v1/nodes/{self._config.node}/shards/{shard}/keep"
        answer = await self._post(path, request, with_certificate=True)
        try:
            return Verdict.model_validate_json(answer.content)
        except ValidationError as problem:
            raise ProviderAnswerInvalid("the control plane's answer is not a verdict") from problem

    async def renew_leases(self, held: tuple[HeldShard, ...]) -> LeaseGrant:
        """Which of the shards may run on. Raises ProviderUnavailable, AuthenticationFailed, ProviderAnswerInvalid."""
        path = f"/v1/nodes/{self._config.node}/leases"
        answer = await self._post(path, LeaseRequest(shards=held), with_certificate=True)
        try:
            return LeaseGrant.model_validate_json(answer.content)
        except ValidationError as problem:
            raise ProviderAnswerInvalid("the control plane's answer grants no lease") from problem

    async def report_health(self, report: HealthRequest) -> HealthOrders:
        """Tell of the shards' health, hear which to check. Raises ShardwrightError without an answer."""
        answer = await self._post(f"/v1/nodes/{self._config.node}/health", report, with_certificate=True)
        try:
            return HealthOrders.model_validate_json(answer.content)
        except ValidationError as problem:
            raise ProviderAnswerInvalid("the control plane's answer orders no checks") from problem

    async def overlay(self, request: OverlayRequest) -> OverlayView:
        """The newest view of the overlay; waits a while for one that is newer than what the request knows.

        Raises ProviderUnavailable, AuthenticationFailed, ProviderAnswerInvalid.
        """
        answer = await self._post(f"/v1/nodes/{self._config.node}/overlay", request, with_certificate=True)
        try:
            return OverlayView.model_validate_json(answer.content)
        except ValidationError as problem:
            raise ProviderAnswerInvalid("the control plane's answer is no view of the overlay") from problem

    async def _post(self, path: str, body: Value, *, with_certificate: bool) -> httpx.Response:
        context = client_context(
            ca=self.ca_file,
            certificate=self.certificate_file if with_certificate else None,
            key=self.key_file if with_certificate else None,
        )
        try:
            async with httpx.AsyncClient(verify=context, timeout=_TIMEOUT, trust_env=False) as client:
                answer = await client.post(
                    self._config.control_url + path,
                    content=body.model_dump_json(),
                    headers={"content-type": "application/json"},
                    extensions={"sni_hostname": CONTROL_NAME},
                )
        except httpx.HTTPError as problem:
            raise ProviderUnavailable("the control plane does not answer", why=str(problem)) from problem
        if answer.status_code >= 500 or answer.status_code == 429:
            raise ProviderUnavailable("the control plane cannot answer now", why=_refusal(answer))
        if answer.status_code >= 400:
            raise AuthenticationFailed("the control plane refuses", why=_refusal(answer))
        return answer

    def _csr(self) -> str:
        if not self.key_file.exists():
            fresh = ec.generate_private_key(ec.SECP256R1())
            pem = fresh.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            write_durably(self.key_file, pem)
        key = serialization.load_pem_private_key(self.key_file.read_bytes(), password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise AuthenticationFailed("the node's key is not an elliptic-curve key")
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self._config.node[:64])])
        request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
        return request.public_bytes(serialization.Encoding.PEM).decode()

    def _install(self, answer: httpx.Response) -> None:
        try:
            certificate = Certificate.model_validate_json(answer.content)
        except ValidationError as problem:
            raise ProviderAnswerInvalid("the control plane's answer holds no certificate") from problem
        pem = certificate.certificate_pem.encode()
        # QEMU's tls-creds-x509 finds its files by these names in one folder.
        for content, names in (
            (self.ca_file.read_bytes(), ("ca-cert.pem",)),
            (pem, ("server-cert.pem", "client-cert.pem")),
            (self.key_file.read_bytes(), ("server-key.pem", "client-key.pem")),
        ):
            for name in names:
                _put_private(self.folder / name, content)
        write_durably(self.folder / key_exchange.FILE, key_exchange.parameters())
        # Last: by this file everybody knows that there is a new one, and half of it would be kept until the next.
        write_durably(self.certificate_file, pem)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _challenge(answer: httpx.Response) -> str:
    try:
        return Challenge.model_validate_json(answer.content).challenge
    except ValidationError as problem:
        raise ProviderAnswerInvalid("the control plane's answer holds no challenge") from problem


def _put_private(target: Path, content: bytes) -> None:
    scratch = target.with_name(f".{target.name}.new")
    scratch.touch(0o600)
    scratch.write_bytes(content)
    scratch.rename(target)


def _refusal(answer: httpx.Response) -> str:
    try:
        problem = Problem.model_validate_json(answer.content)
    except ValidationError:
        return f"HTTP {answer.status_code}"
    return f"{problem.what} {problem.why}".strip()
