"""The agent's HTTPS API: thin routes over ShardHost and MoveAgent; the control plane's certificate only."""

import logging
import os
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import TypeAdapter, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agent import __version__
from agent.attaching import Attacher
from agent.cold_restart import ColdRestartAgent
from agent.config import AgentConfig
from agent.moves import MoveAgent
from agent.peer import peer_of
from agent.postcopy import PostCopyAgent
from agent.shards import ShardHost
from agent.volumes import VolumeHost
from agent.wire import (
    NAME,
    AbortRequest,
    AccessRequest,
    AttachRequest,
    CarveRequest,
    CommitRequest,
    EpochRequest,
    MeasureRequest,
    MemoryRequest,
    MirrorRequest,
    MoveCommand,
    NodeStatus,
    PatchRequest,
    PrepareRequest,
    Problem,
    ReserveRequest,
    ResizeRequest,
    SendRequest,
    SwitchoverRequest,
    TuneRequest,
    VolumeRequest,
    control_identity,
)
from engine.errors import (
    AuthenticationFailed,
    ConcurrentUpdate,
    InsufficientCapacity,
    NotFound,
    ShardwrightError,
    StaleEpoch,
    UsageError,
)
from engine.model.ids import ShardId
from engine.model.value import Value

LARGEST_BODY_BYTES = 64 * 1024
LARGEST_MEMORY_BODY_BYTES = 16 * 1024 * 1024
_LONGEST_WAIT_SECONDS = 30.0
_LOG = logging.getLogger("agent.app")
_STATUS_BY_ERROR: tuple[tuple[type[ShardwrightError], int], ...] = (
    (StaleEpoch, 412),
    (AuthenticationFailed, 403),
    (NotFound, 404),
    (ConcurrentUpdate, 409),
    (InsufficientCapacity, 507),
    (UsageError, 422),
)
Body = TypeVar("Body", bound=Value)
_SHARD: TypeAdapter[ShardId] = TypeAdapter(Annotated[ShardId, NAME])
Handler = Callable[[Request], Awaitable[Response]]


class AgentApi:
    """Routes; every error that the project knows goes out as a Problem."""

    def __init__(self, config: AgentConfig, host: ShardHost, started_at: datetime) -> None:
        self._config, self._host, self._started_at = config, host, started_at
        self.moves = MoveAgent(host, config)
        self.volumes, self.attacher = VolumeHost(host), Attacher(host)
        self.post_copy = PostCopyAgent(self.moves, config)
        self.cold_restart = ColdRestartAgent(host, self.moves)

    def app(self) -> Starlette:
        shard, move = "/v1/shards/{shard}", "/v1/shards/{shard}/move"
        table: list[tuple[str, str, Handler]] = [
            ("GET", "/v1/status", self._status),
            ("POST", "/v1/shards", self._carve),
            ("GET", shard, self._shard),
            ("POST", f"{shard}/resize", self._resize),
            ("POST", f"{shard}/measure", self._measure),
            ("POST", f"{shard}/release", self._release),
            ("POST", f"{shard}/attach", self._attach),
            ("POST", "/v1/volumes", self._create_volume),
            ("POST", "/v1/volumes/{shard}/hold", self._hold),
            ("POST", "/v1/volumes/{shard}/admit", self._admit),
            ("GET", f"{move}/source", self._source),
            ("GET", f"{move}/destination", self._destination),
            ("POST", f"{move}/reserve", self._reserve),
            ("POST", f"{move}/prepare", self._prepare),
            ("POST", f"{move}/mirror", self._mirror),
            ("POST", f"{move}/precopy", self._precopy),
            ("POST", f"{move}/tune", self._tune),
            ("POST", f"{move}/switchover", self._switchover),
            ("POST", f"{move}/proceed", self._proceed),
            ("POST", f"{move}/memory", self._memory),
            ("POST", f"{move}/patch", self._patch),
            ("POST", f"{move}/commit", self._commit),
            ("POST", f"{move}/restart", self._restart),
            ("POST", f"{move}/cease", self._cease),
            ("POST", f"{move}/claim", self._claim),
            ("POST", f"{move}/listen-again", self._listen_again),
            ("POST", f"{move}/send-again", self._send_again),
            ("POST", f"{move}/abort", self._abort),
            ("POST", f"{move}/resume", self._resume),
        ]
        return Starlette(routes=[Route(path, guarded(handler), methods=[verb]) for verb, path, handler in table])

    async def _status(self, request: Request) -> Response:
        shards = tuple([await self._host.status(one) for one in list(self._host.guests)])
        return reply(
            NodeStatus(
                node=self._config.node,
                version=__version__,
                started_at=self._started_at,
                capacity=self._config.capacity,
                reserved=self._host.reserved(),
                network=self._host.network,
                accelerator=self._host.accelerator,
                resident_bytes=resident_bytes(),
                shards=shards,
            )
        )

    async def _carve(self, request: Request) -> Response:
        return reply(await self._host.carve(await body(request, CarveRequest)))

    async def _shard(self, request: Request) -> Response:
        return reply(await self._host.status(_shard_of(request)))

    async def _resize(self, request: Request) -> Response:
        wanted = await body(request, ResizeRequest)
        return reply(await self._host.resize(_shard_of(request), wanted.epoch, wanted.resources))

    async def _measure(self, request: Request) -> Response:
        wanted = await body(request, MeasureRequest)
        return reply(await self._host.measure(_shard_of(request), wanted.epoch, wanted.seconds))

    async def _release(self, request: Request) -> Response:
        shard, epoch = _shard_of(request), (await body(request, EpochRequest)).epoch
        await self.volumes.release(shard, epoch)
        await self._host.release(shard, epoch)
        return Response(status_code=204)

    async def _attach(self, request: Request) -> Response:
        return reply(await self.attacher.attach(_shard_of(request), await body(request, AttachRequest)))

    async def _create_volume(self, request: Request) -> Response:
        await self.volumes.create(await body(request, VolumeRequest))
        return Response(status_code=204)

    async def _hold(self, request: Request) -> Response:
        return reply(await self.volumes.hold(_shard_of(request), await body(request, AccessRequest)))

    async def _admit(self, request: Request) -> Response:
        return reply(await self.volumes.admit(_shard_of(request), await body(request, AccessRequest)))

    async def _source(self, request: Request) -> Response:
        return reply(await self.moves.source.status(_shard_of(request)))

    async def _destination(self, request: Request) -> Response:
        return reply(await self.moves.destination.status(_shard_of(request)))

    async def _reserve(self, request: Request) -> Response:
        self.moves.destination.reserve(_shard_of(request), await body(request, ReserveRequest))
        return Response(status_code=204)

    async def _prepare(self, request: Request) -> Response:
        return reply(await self.moves.destination.prepare(_shard_of(request), await body(request, PrepareRequest)))

    async def _mirror(self, request: Request) -> Response:
        return reply(await self.moves.source.mirror(_shard_of(request), await body(request, MirrorRequest)))

    async def _precopy(self, request: Request) -> Response:
        return reply(await self.moves.source.precopy(_shard_of(request), await body(request, SendRequest)))

    async def _tune(self, request: Request) -> Response:
        return reply(await self.moves.source.tune(_shard_of(request), await body(request, TuneRequest)))

    async def _switchover(self, request: Request) -> Response:
        try:
            wait = min(float(request.query_params.get("wait", "1")), _LONGEST_WAIT_SECONDS)
        except ValueError:
            raise UsageError("wait is a number of seconds") from None
        return reply(
            await self.moves.source.switchover(_shard_of(request), await body(request, SwitchoverRequest), wait)
        )

    async def _proceed(self, request: Request) -> Response:
        return reply(await self.moves.source.proceed(_shard_of(request), await body(request, MoveCommand)))

    async def _commit(self, request: Request) -> Response:
        wanted = await body(request, CommitRequest, LARGEST_MEMORY_BODY_BYTES)
        return reply(await self.moves.destination.commit(_shard_of(request), wanted))

    async def _restart(self, request: Request) -> Response:
        return reply(await self.cold_restart.restart(_shard_of(request), await body(request, MoveCommand)))

    async def _cease(self, request: Request) -> Response:
        return reply(await self.cold_restart.cease(_shard_of(request), await body(request, MoveCommand)))

    async def _claim(self, request: Request) -> Response:
        return reply(await self.post_copy.claim(_shard_of(request), await body(request, MoveCommand)))

    async def _listen_again(self, request: Request) -> Response:
        return reply(await self.post_copy.listen_again(_shard_of(request), await body(request, MoveCommand)))

    async def _send_again(self, request: Request) -> Response:
        return reply(await self.post_copy.send_again(_shard_of(request), await body(request, MirrorRequest)))

    async def _memory(self, request: Request) -> Response:
        return reply(await self.moves.source.memory(_shard_of(request), await body(request, MemoryRequest)))

    async def _patch(self, request: Request) -> Response:
        await self.moves.destination.patch(
            _shard_of(request), await body(request, PatchRequest, LARGEST_MEMORY_BODY_BYTES)
        )
        return Response(status_code=204)

    async def _abort(self, request: Request) -> Response:
        return reply(await self.moves.destination.abort(_shard_of(request), await body(request, AbortRequest)))

    async def _resume(self, request: Request) -> Response:
        return reply(await self.moves.source.resume(_shard_of(request), await body(request, MoveCommand)))


def guarded(handler: Handler) -> Handler:
    """Only the control plane may command a node; known errors become Problems."""

    async def run(request: Request) -> Response:
        try:
            if peer_of(request.scope) != control_identity():
                raise AuthenticationFailed("only the control plane may command this node")
            return await handler(request)
        except ShardwrightError as error:
            _LOG.warning("%s %s refused: %s", request.method, request.url.path, error)
            return refusal(error)

    return run


async def body(request: Request, kind: type[Body], largest: int = LARGEST_BODY_BYTES) -> Body:
    """The request's body as a value. Raises UsageError, without echoing what was sent."""
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > largest:
            raise UsageError("the body is too large", why=f"at most {largest} bytes")
    try:
        return kind.model_validate_json(bytes(content))
    except ValidationError as problem:
        wrong = "; ".join(
            ".".join(map(str, one["loc"])) + ": " + one["msg"] for one in problem.errors(include_input=False)
        )
        raise UsageError(f"not a {kind.__name__}", why=wrong) from None


def reply(value: Value) -> Response:
    return Response(value.model_dump_json(), media_type="application/json")


def refusal(error: ShardwrightError) -> Response:
    status = next((code for kind, code in _STATUS_BY_ERROR if isinstance(error, kind)), 500)
    problem = Problem(error=type(error).__name__, what=error.what, why=error.why, next_step=error.next_step)
    return Response(problem.model_dump_json(), status_code=status, media_type="application/json")


def resident_bytes() -> int:
    """Memory of this process that is in RAM."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _shard_of(request: Request) -> ShardId:
    try:
        return _SHARD.validate_python(request.path_params["shard"])
    except ValidationError:
        raise UsageError("not a shard id") from None
