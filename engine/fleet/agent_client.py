"""The control plane's client of one node agent: mutual TLS, time-outs, bounded retries. Every call may be repeated."""

import random
import threading
from collections.abc import Callable
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TypeVar

import httpx
from pydantic import ValidationError

from agent.peer import client_context
from agent.wire import (
    AccessRequest,
    AttachedDisk,
    AttachRequest,
    CarveRequest,
    CommitRequest,
    Committed,
    DestinationStatus,
    EpochRequest,
    Landing,
    MeasureRequest,
    MemoryPatch,
    MemoryRequest,
    MirrorRequest,
    MoveCommand,
    NodeStatus,
    PatchRequest,
    PrepareRequest,
    Problem,
    Proceeded,
    ReserveRequest,
    ResizeRequest,
    SendRequest,
    ShardStatus,
    SourceStatus,
    TuneRequest,
    VolumeRequest,
)
from engine import errors
from engine.clock import Clock
from engine.errors import (
    AnswerTooLarge,
    NodeSilent,
    ProviderAnswerInvalid,
    ProviderUnavailable,
    ShardwrightError,
    UnknownName,
)
from engine.fleet.call_deadline import EndingSocket, call_ends_after
from engine.fleet.certificates import ControlCredentials
from engine.model.capacity import Resources
from engine.model.ids import NodeId, ShardId
from engine.model.placement import Node, NodeState
from engine.model.value import Value

_CONNECT_SECONDS, _READ_SECONDS = 3.0, 15.0
_CARVE_SECONDS, _MOVE_SECONDS, _MEASURE_SECONDS = 240.0, 45.0, 150.0
_BODY_SECONDS = 30.0
"""More than a call waits for its first word: 8 MiB of memory may come over a slow link, an endless answer may not."""
_LARGEST_BYTES, _LARGEST_MEMORY_BYTES = 4 << 20, 32 << 20
"""Of an answer: 500 shards' status is 1 MB; of memory, 8 MiB a patch and 128 KiB of checksums a GiB, all differing."""
_KEEP_ALIVE_SECONDS = 55.0
"""Below the agents' own 60 s: no handshake may fall into a switchover."""
_ATTEMPTS = 3
_FIRST_PAUSE = 0.1
Answer = TypeVar("Answer", bound=Value)


class AgentClient:
    """One agent. Raises NodeSilent when it does not answer, else the error that it names."""

    def __init__(self, node: NodeId, url: str, http: httpx.Client, clock: Clock, rng: random.Random) -> None:
        self.node = node
        self._url, self._http, self._clock, self._rng = url.rstrip("/"), http, clock, rng

    # -- shards

    def status(self) -> NodeStatus:
        return self._get("/v1/status", NodeStatus)

    def carve(self, request: CarveRequest) -> ShardStatus:
        """Returns when the workload is up (seconds under TCG)."""
        return self._post("/v1/shards", request, ShardStatus, seconds=_CARVE_SECONDS)

    def shard(self, shard: ShardId) -> ShardStatus:
        return self._get(f"/v1/shards/{shard}", ShardStatus)

    def resize(self, shard: ShardId, epoch: int, resources: Resources) -> ShardStatus:
        request = ResizeRequest(epoch=epoch, resources=resources)
        return self._post(f"/v1/shards/{shard}/resize", request, ShardStatus, seconds=_MOVE_SECONDS)

    def measure(self, shard: ShardId, epoch: int, seconds: int) -> ShardStatus:
        """The guest measures what it gets: CPU, disk and network in turn, ``seconds`` each."""
        request = MeasureRequest(epoch=epoch, seconds=seconds)
        return self._post(f"/v1/shards/{shard}/measure", request, ShardStatus, seconds=_MEASURE_SECONDS)

    def release(self, shard: ShardId, epoch: int) -> None:
        self._tell(f"/v1/shards/{shard}/release", EpochRequest(epoch=epoch))

    # -- storage

    def create_volume(self, request: VolumeRequest) -> None:
        self._tell("/v1/volumes", request)

    def hold(self, storage: ShardId, request: AccessRequest) -> AttachedDisk:
        """The node's user of the disk from now on; every other's connection is gone on return."""
        return self._post(f"/v1/volumes/{storage}/hold", request, AttachedDisk)

    def admit(self, storage: ShardId, request: AccessRequest) -> AttachedDisk:
        return self._post(f"/v1/volumes/{storage}/admit", request, AttachedDisk)

    def attach(self, shard: ShardId, request: AttachRequest) -> ShardStatus:
        return self._post(f"/v1/shards/{shard}/attach", request, ShardStatus)

    # -- moves: destination

    def reserve(self, shard: ShardId, request: ReserveRequest) -> None:
        self._tell(f"/v1/shards/{shard}/move/reserve", request)

    def prepare(self, shard: ShardId, request: PrepareRequest) -> Landing:
        return self._post(f"/v1/shards/{shard}/move/prepare", request, Landing, seconds=_MOVE_SECONDS)

    def commit(self, shard: ShardId, command: CommitRequest) -> Committed:
        return self._post(f"/v1/shards/{shard}/move/commit", command, Committed, _MOVE_SECONDS, _LARGEST_MEMORY_BYTES)

    def restart(self, shard: ShardId, command: MoveCommand) -> ShardStatus:
        return self._post(f"/v1/shards/{shard}/move/restart", command, ShardStatus, seconds=_CARVE_SECONDS)

    def patch(self, shard: ShardId, request: PatchRequest) -> None:
        self._tell(f"/v1/shards/{shard}/move/patch", request)

    def claim(self, shard: ShardId, command: MoveCommand) -> DestinationStatus:
        return self._post(f"/v1/shards/{shard}/move/claim", command, DestinationStatus)

    def listen_again(self, shard: ShardId, command: MoveCommand) -> Landing:
        return self._post(f"/v1/shards/{shard}/move/listen-again", command, Landing)

    def destination_status(self, shard: ShardId) -> DestinationStatus:
        return self._get(f"/v1/shards/{shard}/move/destination", DestinationStatus)

    # -- moves: source

    def source_status(self, shard: ShardId) -> SourceStatus:
        return self._get(f"/v1/shards/{shard}/move/source", SourceStatus)

    def mirror(self, shard: ShardId, request: MirrorRequest) -> SourceStatus:
        return self._post(f"/v1/shards/{shard}/move/mirror", request, SourceStatus)

    def precopy(self, shard: ShardId, request: SendRequest) -> SourceStatus:
        return self._post(f"/v1/shards/{shard}/move/precopy", request, SourceStatus)

    def tune(self, shard: ShardId, request: TuneRequest) -> SourceStatus:
        return self._post(f"/v1/shards/{shard}/move/tune", request, SourceStatus)

    def switchover(self, shard: ShardId, command: MoveCommand, wait_seconds: float) -> SourceStatus:
        path = f"/v1/shards/{shard}/move/switchover?wait={wait_seconds:g}"
        return self._post(path, command, SourceStatus, seconds=_MOVE_SECONDS + wait_seconds)

    def cease(self, shard: ShardId, command: MoveCommand) -> SourceStatus:
        return self._post(f"/v1/shards/{shard}/move/cease", command, SourceStatus, seconds=_MOVE_SECONDS)

    def proceed(self, shard: ShardId, command: MoveCommand) -> Proceeded:
        return self._post(f"/v1/shards/{shard}/move/proceed", command, Proceeded, _MOVE_SECONDS, _LARGEST_MEMORY_BYTES)

    def memory(self, shard: ShardId, request: MemoryRequest) -> MemoryPatch:
        return self._post(f"/v1/shards/{shard}/move/memory", request, MemoryPatch, largest=_LARGEST_MEMORY_BYTES)

    def send_again(self, shard: ShardId, request: MirrorRequest) -> SourceStatus:
        return self._post(f"/v1/shards/{shard}/move/send-again", request, SourceStatus)

    # -- moves: either side

    def resume(self, shard: ShardId, command: MoveCommand) -> SourceStatus:
        return self._post(f"/v1/shards/{shard}/move/resume", command, SourceStatus, seconds=_MOVE_SECONDS)

    def abort(self, shard: ShardId, command: MoveCommand) -> DestinationStatus:
        return self._post(f"/v1/shards/{shard}/move/abort", command, DestinationStatus, seconds=_MOVE_SECONDS)

    # -- plumbing

    def _get(self, path: str, kind: type[Answer]) -> Answer:
        return self._read(self._send("GET", path, None, _READ_SECONDS, _LARGEST_BYTES), kind)

    def _post(
        self, path: str, body: Value, kind: type[Answer], seconds: float = _READ_SECONDS, largest: int = _LARGEST_BYTES
    ) -> Answer:
        return self._read(self._send("POST", path, body, seconds, largest), kind)

    def _tell(self, path: str, body: Value) -> None:
        self._send("POST", path, body, _READ_SECONDS, _LARGEST_BYTES)

    def _send(self, verb: str, path: str, body: Value | None, seconds: float, largest: int) -> bytes:
        """The answer's body. Whatever a node does, it is one of our errors, and within bounds of time and memory."""
        content = None if body is None else body.model_dump_json()
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                with call_ends_after(seconds + _BODY_SECONDS):
                    status, answer = self._exchange(verb, path, content, seconds, largest)
            except httpx.TransportError as problem:
                if attempt == _ATTEMPTS or isinstance(problem, httpx.ReadTimeout):
                    raise self._silent(problem) from problem
                self._clock.sleep(_FIRST_PAUSE * 2 ** (attempt - 1) * self._rng.uniform(0.5, 1.0))
            except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as problem:  # the last: of a host that is no name
                raise self._silent(problem) from problem
            else:
                if status >= 400:
                    raise _named(self.node, status, answer)
                return answer
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _exchange(self, verb: str, path: str, content: str | None, seconds: float, largest: int) -> tuple[int, bytes]:
        with self._http.stream(
            verb,
            self._url + path,
            content=content,
            headers={"accept-encoding": "identity"},
            timeout=httpx.Timeout(seconds, connect=_CONNECT_SECONDS),
            extensions={"sni_hostname": str(self.node)},
        ) as answer:
            if answer.headers.get("content-encoding", "identity") != "identity":  # 1 MB of it may be 1 GB of answer
                raise ProviderAnswerInvalid(f"node {self.node} answers in an encoding that it was not asked for")
            whole = bytearray()
            for chunk in answer.iter_bytes():
                whole += chunk
                if len(whole) > largest:
                    raise AnswerTooLarge(f"node {self.node} never stops answering", why=f"at most {largest} bytes")
            return answer.status_code, bytes(whole)

    def _silent(self, problem: Exception) -> NodeSilent:
        return NodeSilent(f"node {self.node} does not answer", why=f"{type(problem).__name__}: {problem}")

    def _read(self, answer: bytes, kind: type[Answer]) -> Answer:
        try:
            return kind.model_validate_json(answer)
        except ValidationError as problem:
            raise ProviderAnswerInvalid(f"node {self.node} does not answer with a {kind.__name__}") from problem


class AgentClients:
    """A client per node, remade when the node has moved to another address or our certificate was renewed."""

    def __init__(
        self, node: Callable[[NodeId], Node], credentials: ControlCredentials, clock: Clock, rng: random.Random
    ) -> None:
        """``node`` looks a node up (ShardMap.node)."""
        self._node, self._credentials, self._clock, self._rng = node, credentials, clock, rng
        self._lock = threading.Lock()
        self._http: httpx.Client | None = None
        self._loaded = 0
        self._clients: dict[tuple[NodeId, str], AgentClient] = {}

    def __call__(self, node: NodeId) -> AgentClient:
        """Raises UnknownName, also for a node that is gone, and ProviderUnavailable for one that has not joined."""
        known = self._node(node)
        if known.state is NodeState.GONE:
            raise UnknownName(f"node {node} is gone, and everything on it")
        url = known.agent_url
        if url is None:
            raise ProviderUnavailable(f"node {node} has not joined")
        with self._lock:
            generation = self._credentials.current()
            if generation != self._loaded or self._http is None:
                context = client_context(
                    ca=self._credentials.ca_file,
                    certificate=self._credentials.certificate_file,
                    key=self._credentials.key_file,
                )
                context.sslsocket_class = EndingSocket
                # The replaced client is left to its users and closes its connections with its last one.
                limits = httpx.Limits(keepalive_expiry=_KEEP_ALIVE_SECONDS)
                none = CookieJar(DefaultCookiePolicy(allowed_domains=[]))  # a node could have us keep ever more of them
                self._http = httpx.Client(verify=context, trust_env=False, limits=limits, cookies=none)
                self._clients = {}
                self._loaded = generation
            key = (node, url)
            if key not in self._clients:
                self._clients[key] = AgentClient(node, url, self._http, self._clock, self._rng)
            return self._clients[key]

    def close(self) -> None:
        with self._lock:
            if self._http is not None:
                self._http.close()
            self._http, self._clients = None, {}


def _named(node: NodeId, status: int, answer: bytes) -> ShardwrightError:
    try:
        problem = Problem.model_validate_json(answer)
    except ValidationError:
        return ProviderAnswerInvalid(f"node {node} refuses", why=f"HTTP {status}")
    kind = getattr(errors, problem.error, ShardwrightError)
    known = isinstance(kind, type) and issubclass(kind, ShardwrightError)
    return (kind if known else ShardwrightError)(
        f"{problem.what} (node {node})", why=problem.why, next_step=problem.next_step
    )
