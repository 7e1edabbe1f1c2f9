"""How the running sandbox is told things: a small HTTP service on loopback, opened by the token in sandbox.json.

GET  /status             SandboxStatus
POST /market/reclaim     ReclaimNode        -> NodeStatus
POST /market/price       SetPrice           -> {}
POST /market/cheaper     MakeCheaper        -> Cheaper
POST /market/fault       SetFault           -> {}
POST /clients            NewClient          -> Attachment
POST /relay              OpenRelay          -> RelayAddress
"""

import hmac
import threading
from collections.abc import Callable, Mapping
from decimal import Decimal
from http.server import BaseHTTPRequestHandler
from typing import Annotated, Protocol, TypeVar

import httpx
from pydantic import BaseModel, Field, ValidationError

from engine.errors import ShardwrightError, UsageError
from providers.sandbox import netns
from providers.sandbox.contract import FaultMode, MarketOption, Message, Price
from providers.sandbox.info import SandboxInfo
from providers.sandbox.metadata import http_server
from providers.sandbox.underlay import Attachment

_MAX_BODY = 64 * 1024
Port = Annotated[int, Field(ge=1, le=65535)]
Reply = TypeVar("Reply", bound=BaseModel)


class NodeStatus(Message):
    node: str
    provider: str
    instance_id: str
    instance_type: str
    region: str
    spot: bool
    namespace: str | None
    address: str
    reclaimed: bool


class ServerStatus(Message):
    name: str
    pid: int
    alive: bool


class SandboxStatus(Message):
    servers: tuple[ServerStatus, ...]
    nodes: tuple[NodeStatus, ...]


class ReclaimNode(Message):
    """``notice_seconds`` None: what the provider usually gives."""

    node: str
    notice_seconds: Annotated[float, Field(ge=0)] | None = None


class SetPrice(Message):
    provider: str
    region: str
    instance_type: str
    option: MarketOption
    price: Price


class MakeCheaper(Message):
    """Every matching price is multiplied by ``factor`` (between 0 and 1); None matches all."""

    instance_type: str
    factor: Decimal
    provider: str | None = None
    region: str | None = None
    option: MarketOption | None = None


class Cheaper(Message):
    changed: tuple[SetPrice, ...]


class SetFault(Message):
    provider: str
    mode: FaultMode
    seconds: Annotated[float, Field(ge=0)]


class NewClient(Message):
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,30}$")]


class OpenRelay(Message):
    port: Port


class RelayAddress(Message):
    host: str
    port: Port


class Nothing(Message):
    pass


class Problem(Message):
    what: str
    why: str
    next_step: str


class Orders(Protocol):
    """What the supervisor does when told. Raises ShardwrightError."""

    def status(self) -> SandboxStatus: ...
    def reclaim(self, order: ReclaimNode) -> NodeStatus: ...
    def set_price(self, order: SetPrice) -> Nothing: ...
    def make_cheaper(self, order: MakeCheaper) -> Cheaper: ...
    def set_fault(self, order: SetFault) -> Nothing: ...
    def attach_client(self, order: NewClient) -> Attachment: ...
    def open_relay(self, order: OpenRelay) -> RelayAddress: ...


class ControlServer:
    """Serves ``Orders`` on a free loopback port."""

    def __init__(self, orders: Orders, token: str) -> None:
        listener = netns.listen("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self._server = http_server(listener, _handler(_routes(orders), token))

    def close(self) -> None:
        threading.Thread(target=self._server.shutdown, daemon=True).start()
        self._server.server_close()


Route = Callable[[bytes], BaseModel]


def _routes(orders: Orders) -> dict[tuple[str, str], Route]:
    return {
        ("GET", "/status"): lambda _: orders.status(),
        ("POST", "/market/reclaim"): lambda body: orders.reclaim(ReclaimNode.model_validate_json(body)),
        ("POST", "/market/price"): lambda body: orders.set_price(SetPrice.model_validate_json(body)),
        ("POST", "/market/cheaper"): lambda body: orders.make_cheaper(MakeCheaper.model_validate_json(body)),
        ("POST", "/market/fault"): lambda body: orders.set_fault(SetFault.model_validate_json(body)),
        ("POST", "/clients"): lambda body: orders.attach_client(NewClient.model_validate_json(body)),
        ("POST", "/relay"): lambda body: orders.open_relay(OpenRelay.model_validate_json(body)),
    }


def _handler(routes: Mapping[tuple[str, str], Route], token: str) -> type[BaseHTTPRequestHandler]:
    expected = f"Bearer {token}".encode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30

        def _respond(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(min(length, _MAX_BODY))
            if not hmac.compare_digest(self.headers.get("Authorization", "").encode(), expected):
                self._send(401, Problem(what="the token is wrong", why="", next_step="read it from sandbox.json"))
                return
            route = routes.get((self.command, self.path))
            if route is None or length > _MAX_BODY:
                self._send(404, Problem(what=f"no {self.command} {self.path}", why="", next_step=""))
                return
            try:
                self._send(200, route(body))
            except ValidationError as error:
                self._send(422, Problem(what="the order cannot be read", why=str(error), next_step=""))
            except ShardwrightError as error:
                self._send(409, Problem(what=error.what, why=error.why, next_step=error.next_step))

        def _send(self, status: int, reply: BaseModel) -> None:
            content = reply.model_dump_json().encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = _respond  # noqa: N815 (the names that http.server calls)

        def log_message(self, format: str, *args: object) -> None:
            """Requests are not logged: they carry the token."""

    return Handler


class SandboxClient:
    """Tells a running sandbox things. Raises UsageError with the sandbox's own words when it refuses."""

    def __init__(self, info: SandboxInfo, *, timeout_seconds: float = 10.0) -> None:
        self._http = httpx.Client(
            base_url=info.control_url,
            headers={"Authorization": f"Bearer {info.control_token}", "Content-Type": "application/json"},
            timeout=timeout_seconds,
            trust_env=False,
        )

    def status(self) -> SandboxStatus:
        return self._call("GET", "/status", None, SandboxStatus)

    def reclaim(self, node: str, notice_seconds: float | None = None) -> NodeStatus:
        order = ReclaimNode(node=node, notice_seconds=notice_seconds)
        return self._call("POST", "/market/reclaim", order, NodeStatus)

    def set_price(self, order: SetPrice) -> None:
        self._call("POST", "/market/price", order, Nothing)

    def make_cheaper(self, order: MakeCheaper) -> Cheaper:
        return self._call("POST", "/market/cheaper", order, Cheaper)

    def set_fault(self, provider: str, mode: FaultMode, seconds: float) -> None:
        self._call("POST", "/market/fault", SetFault(provider=provider, mode=mode, seconds=seconds), Nothing)

    def attach_client(self, name: str) -> Attachment:
        """A namespace on the underlay, for a client's host. Same name, same client. Needs namespaces."""
        return self._call("POST", "/clients", NewClient(name=name), Attachment)

    def open_relay(self, port: int) -> RelayAddress:
        """Where nodes reach 127.0.0.1:``port``. Idempotent."""
        return self._call("POST", "/relay", OpenRelay(port=port), RelayAddress)

    def close(self) -> None:
        self._http.close()

    def _call(self, method: str, path: str, order: Message | None, reply: type[Reply]) -> Reply:
        try:
            answer = self._http.request(method, path, content=None if order is None else order.model_dump_json())
        except httpx.HTTPError as error:
            raise UsageError(
                "the sandbox does not answer", why=type(error).__name__, next_step="shardwright sandbox up"
            ) from error
        try:
            if answer.is_error:
                problem = Problem.model_validate_json(answer.content)
                raise UsageError(problem.what, why=problem.why, next_step=problem.next_step)
            return reply.model_validate_json(answer.content)
        except ValidationError as error:
            raise UsageError("the sandbox answered something else", why=str(error)) from error
