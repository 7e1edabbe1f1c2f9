"""Where nodes report to the control plane: joining, renewing, reclaim notices, run leases, moves that were left.

POST /v1/join/challenge       server TLS -> what the node's provider shall sign
POST /v1/join                 server TLS + signed identity or one-use token -> certificate
POST /v1/renew                mutual TLS -> certificate for the same node
POST /v1/nodes/NODE/notices   mutual TLS, that node only -> 204
POST /v1/nodes/NODE/shards/SHARD/keep   mutual TLS, that node only -> who owns a shard that a move has left paused
POST /v1/nodes/NODE/leases    mutual TLS, that node only -> which of its shards may run on
POST /v1/nodes/NODE/health    mutual TLS, that node only -> which of its shards to check, and how
POST /v1/nodes/NODE/overlay   mutual TLS, that node or gateway only -> the overlay's next view

"Mutual TLS" is: with a certificate for the key that the node was admitted with, while the store has the node
(engine.store.admitted). A certificate that was issued once is no more than that.
"""

import asyncio
import logging
import secrets
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agent.app import body, refusal, reply
from agent.overlay_wire import OverlayRequest
from agent.peer import PeerProtocol, certificate_of, peer_of, server_context
from agent.wire import (
    Challenge,
    ChallengeRequest,
    HealthOrders,
    HealthRequest,
    JoinRequest,
    KeepRequest,
    LeaseGrant,
    LeaseRequest,
    NoticeReport,
    RenewRequest,
    Verdict,
    node_identity,
)
from engine.errors import AuthenticationFailed, ConfigurationError, ShardwrightError
from engine.fleet.admission import Admission
from engine.fleet.certificates import (
    CertificateAuthority,
    ControlCredentials,
    certificate_key_digest,
    public_key_digest,
    write_private,
)
from engine.fleet.overlay import OverlayDesk
from engine.model.capacity import Resources
from engine.model.ids import NodeId, ShardId
from engine.model.value import Value
from engine.store.admitted import AdmittedKeys
from engine.store.run_leases import RunLeases

_RENEW_CHECK_SECONDS = 30.0
_START_SECONDS = 10.0
JOINS_AT_ONCE = 16
"""Of the 40 threads. Each may wait for its provider's list of all instances; were all threads to wait for such, no node
had its run leases renewed, and watchdogs stopped their guests."""
_log = structlog.get_logger()


class NodeJoined(Value):
    """A node that has just been admitted."""

    node: NodeId
    agent_url: str
    underlay_address: str
    capacity: Resources


class _TurnedAway(Exception):
    """A host that the store does not have (any more); it has been logged."""

    def __init__(self, error: AuthenticationFailed) -> None:
        super().__init__(str(error))
        self.error = error


OnJoin = Callable[[NodeJoined], None]
OnNotice = Callable[[NodeId, NoticeReport], None]
OnKeep = Callable[[NodeId, ShardId, KeepRequest], Verdict]
OnHealth = Callable[[NodeId, HealthRequest], HealthOrders]


def join_secret(folder: Path) -> bytes:
    """What tokens are derived from: ``join.secret`` (mode 0600), made on first use."""
    path = folder / "join.secret"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(path, secrets.token_bytes(32))
    return path.read_bytes()


class ControlListener:
    """An HTTPS server in a thread. The callbacks are called from worker threads and may raise."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        authority: CertificateAuthority,
        credentials: ControlCredentials,
        admission: Admission,
        admitted: AdmittedKeys,
        on_join: OnJoin,
        on_notice: OnNotice,
        on_keep: OnKeep,
        leases: RunLeases,
        overlay: OverlayDesk,
        on_health: OnHealth = lambda _node, _report: HealthOrders(checks=()),
        listener: socket.socket | None = None,
        renew_check_seconds: float = _RENEW_CHECK_SECONDS,
    ) -> None:
        """``listener``: a bound socket to serve instead of ``host`` and ``port`` (it may live in another namespace)."""
        self.host, self.port = host, port
        self._authority, self._credentials, self._admission = authority, credentials, admission
        self._admitted, self._turned_away = admitted, set[tuple[NodeId, str]]()
        self._on_join, self._on_notice, self._leases = on_join, on_notice, leases
        self._on_keep, self._on_health, self._overlay = on_keep, on_health, overlay
        self._socket, self._renew_check_seconds = listener, renew_check_seconds
        self._joins = asyncio.Semaphore(JOINS_AT_ONCE)
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._tls: ssl.SSLContext | None = None
        self._loaded = 0

    @property
    def url(self) -> str:
        return f"https://{self.host}:{self.port}"

    def start(self) -> str:
        """Serve from a thread; returns the URL. Raises ConfigurationError when the address cannot be had."""
        self._loaded = self._credentials.current()
        self._tls = server_context(
            certificate=self._credentials.certificate_file,
            key=self._credentials.key_file,
            ca=self._credentials.ca_file,
            client_certificate=False,
        )
        tls, bound = self._tls, self._socket or _bind(self.host, self.port)
        self.host, self.port = bound.getsockname()[:2]
        config = uvicorn.Config(
            self.app(), http=PeerProtocol, ws="none", lifespan="on", log_config=None, access_log=False,
            server_header=False, timeout_graceful_shutdown=1, ssl_context_factory=lambda _config, _default: tls,
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [bound]}, name="control-listener", daemon=True
        )
        self._thread.start()
        return self.url

    def stop(self) -> None:
        """Ends within about a second. Not started = success."""
        if self._server is not None and self._thread is not None:
            self._overlay.close()
            logging.getLogger("uvicorn.error").addFilter(_of_no_use)
            self._server.should_exit = True
            self._thread.join(_START_SECONDS)

    def app(self) -> Starlette:
        routes = [
            Route("/v1/join/challenge", self._guarded(self._challenge), methods=["POST"]),
            Route("/v1/join", self._guarded(self._join), methods=["POST"]),
            Route("/v1/renew", self._guarded(self._renew), methods=["POST"]),
            Route("/v1/nodes/{node}/notices", self._guarded(self._notice), methods=["POST"]),
            Route("/v1/nodes/{node}/shards/{shard}/keep", self._guarded(self._keep), methods=["POST"]),
            Route("/v1/nodes/{node}/leases", self._guarded(self._lease), methods=["POST"]),
            Route("/v1/nodes/{node}/health", self._guarded(self._health), methods=["POST"]),
            Route("/v1/nodes/{node}/overlay", self._guarded(self._view), methods=["POST"]),
        ]
        return Starlette(routes=routes, lifespan=self._lifespan)

    async def _challenge(self, request: Request) -> Response:
        asked = await body(request, ChallengeRequest)
        return reply(Challenge(challenge=self._admission.challenge(asked.node, asked.csr_pem)))

    async def _join(self, request: Request) -> Response:
        asked = await body(request, JoinRequest)
        async with self._joins:
            await run_in_threadpool(self._admission.admit, asked)
        # An instance that was the node before another one, or a node that was given up, has joined once all the same.
        await self._require_admitted(asked.node, public_key_digest(asked.csr_pem))
        certificate = self._authority.sign_node(asked.node, asked.csr_pem)
        joined = NodeJoined(
            node=asked.node,
            agent_url=asked.agent_url,
            underlay_address=asked.underlay_address,
            capacity=asked.capacity,
        )
        await run_in_threadpool(self._on_join, joined)
        _log.info("node joined", node=asked.node, agent_url=asked.agent_url)
        return reply(certificate)

    async def _renew(self, request: Request) -> Response:
        node = _node_of(request)
        asked = await body(request, RenewRequest)
        await self._require_admitted(node, _key_of(request))
        await self._require_admitted(node, public_key_digest(asked.csr_pem))  # it renews what it has, and no other
        return reply(self._authority.sign_node(node, asked.csr_pem))

    async def _notice(self, request: Request) -> Response:
        node = await self._itself(request)
        notice = await body(request, NoticeReport)
        await run_in_threadpool(self._on_notice, node, notice)
        return Response(status_code=204)

    async def _keep(self, request: Request) -> Response:
        node, shard = await self._itself(request), ShardId(request.path_params["shard"])
        asked = await body(request, KeepRequest)
        verdict = await run_in_threadpool(self._on_keep, node, shard, asked)
        _log.info("a move was left", node=node, shard=shard, move=asked.move, kept=verdict.yours, epoch=verdict.epoch)
        return reply(verdict)

    async def _lease(self, request: Request) -> Response:
        node = await self._itself(request)
        asked = await body(request, LeaseRequest)
        pairs = [(one.shard, one.epoch) for one in asked.shards]
        granted = await run_in_threadpool(self._leases.grant, node, pairs)
        if refused := sorted({shard for shard, _ in pairs} - set(granted)):
            _log.warning("run lease refused", node=node, shards=refused)
        return reply(LeaseGrant(shards=granted))

    async def _health(self, request: Request) -> Response:
        node = await self._itself(request)
        return reply(await run_in_threadpool(self._on_health, node, await body(request, HealthRequest)))

    async def _view(self, request: Request) -> Response:
        node, key = await self._itself(request), _key_of(request)
        asked = await body(request, OverlayRequest)
        try:
            view = await self._overlay.view(node, asked, key)
            await self._require_admitted(node, key)  # it may have waited for a while
            return reply(view)
        except AuthenticationFailed as error:
            # No alarm: a node that was given up asks until its provider has ended it.
            _log.info("no overlay", node=node, error=str(error))
            return refusal(error)

    async def _itself(self, request: Request) -> NodeId:
        """The node that asks, for a path that names it. Raises AuthenticationFailed, or _TurnedAway."""
        node = _node_of(request)
        if request.path_params["node"] != node:
            raise AuthenticationFailed(f"node {node} may only speak for itself")
        await self._require_admitted(node, _key_of(request))
        return node

    async def _require_admitted(self, node: NodeId, key_sha256: str) -> None:
        """Raises _TurnedAway. Logged once: such a host asks every few seconds, until somebody has ended it."""
        try:
            await run_in_threadpool(self._admitted.require, node, key_sha256)
        except AuthenticationFailed as error:
            if (node, key_sha256) not in self._turned_away:
                self._turned_away.add((node, key_sha256))
                _log.warning("turned away", node=node, key=key_sha256[:16], error=str(error))
            raise _TurnedAway(error) from None
        self._turned_away.discard((node, key_sha256))

    @staticmethod
    def _guarded(handler: Callable[[Request], object]) -> Callable[[Request], object]:
        async def run(request: Request) -> Response:
            try:
                return await handler(request)  # type: ignore[misc,no-any-return]
            except _TurnedAway as away:
                return refusal(away.error)
            except ShardwrightError as error:
                _log.warning("refused", path=request.url.path, error=str(error), peer=peer_of(request.scope))
                return refusal(error)

        return run

    @asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(work) for work in (self._keep_renewed(), self._overlay.watch())]
        yield
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _keep_renewed(self) -> None:
        while True:
            await asyncio.sleep(self._renew_check_seconds)
            try:
                self._load_renewed()
            except Exception as problem:
                # Whatever it was: without this loop the whole fleet is refused within the hour.
                _log.warning("the listener keeps its certificate, and tries again", error=str(problem))

    def _load_renewed(self) -> None:
        """Connections made from then on are shown the present certificate."""
        generation = self._credentials.current()
        if generation != self._loaded and self._tls is not None:
            self._tls.load_cert_chain(self._credentials.certificate_file, self._credentials.key_file)
            self._loaded = generation


def _node_of(request: Request) -> NodeId:
    """The node that the client's certificate names. Raises AuthenticationFailed."""
    peer, prefix = peer_of(request.scope) or "", node_identity(NodeId(""))
    if not peer.startswith(prefix):
        raise AuthenticationFailed("only a node with a certificate of this fleet may do this")
    return NodeId(peer.removeprefix(prefix))


def _key_of(request: Request) -> str:
    """SHA-256 (hex) of the key in the client's certificate. Raises AuthenticationFailed."""
    certificate = certificate_of(request.scope)
    if certificate is None:
        raise AuthenticationFailed("only a node with a certificate of this fleet may do this")
    return certificate_key_digest(certificate)


def _of_no_use(record: logging.LogRecord) -> bool:
    """Connections of nodes that have just gone do not say goodbye; that there are such is no error."""
    return "timeout graceful shutdown exceeded" not in record.msg


def _bind(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(64)
    except OSError as problem:
        listener.close()
        raise ConfigurationError(
            f"cannot listen on {host}:{port}", why=problem.strerror or "", next_step="choose another control address"
        ) from problem
    return listener
