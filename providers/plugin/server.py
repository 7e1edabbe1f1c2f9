"""A Pulumi provider plugin in Python: a table of resource kinds behind Pulumi's gRPC interface.

Every explicit Provider resource opens a connection of its own and configures it; a Create does not say which Provider
it belongs to. So sessions are kept by connection (the gRPC peer).
"""

import asyncio
import signal
import sys
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any, Generic, TypeVar

import grpc.aio  # type: ignore[import-untyped]
from google.protobuf import empty_pb2
from pulumi.provider.experimental import provider as protocol
from pulumi.provider.experimental.property_value import PropertyValue
from pulumi.provider.experimental.server import ProviderServicer
from pulumi.runtime._grpc_settings import _GRPC_CHANNEL_OPTIONS
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc

from providers.plugin.kinds import Invoke, ResourceKind, automatic_name, unknown_outputs
from providers.plugin.parent import when_parent_ends
from providers.plugin.values import Plain, Properties, plain_map, wrap, wrap_map

_peer: ContextVar[str] = ContextVar("peer")
_old_inputs: ContextVar[dict[str, Plain]] = ContextVar("old_inputs")
_GRACE_SECONDS = 0.5
_ORPHAN_GRACE_SECONDS = 10.0
"""The engine outlives a killed control plane for as long as the call that it waits for."""
T = TypeVar("T")
Session = TypeVar("Session")
Connect = Callable[[Properties], Session]
"""Provider configuration (camelCase keys, plain values) -> session. Raises engine.errors."""


class TablePlugin(protocol.Provider, Generic[Session]):
    """``kinds`` by type token, ``invokes`` by function token; blocking work runs in threads."""

    def __init__(
        self,
        connect: Connect[Session],
        kinds: Mapping[str, ResourceKind[Session]],
        invokes: Mapping[str, Invoke] | None = None,
    ) -> None:
        self._connect, self._kinds, self._invokes = connect, kinds, invokes or {}
        self._sessions: dict[str, Session] = {}

    async def configure(self, request: protocol.ConfigureRequest) -> protocol.ConfigureResponse:
        self._sessions[_peer.get()] = await asyncio.to_thread(self._connect, plain_map(request.args))
        return protocol.ConfigureResponse(accept_secrets=True, supports_preview=True)

    async def check(self, request: protocol.CheckRequest) -> protocol.CheckResponse:
        kind = self._kind(request.type)
        inputs = dict(request.new_inputs)
        if kind.named and kind.named not in inputs:
            old = request.old_inputs.get(kind.named)
            inputs[kind.named] = old if old is not None else wrap(automatic_name(request.name, request.random_seed))
        failures = [protocol.CheckFailure(key, reason) for key, reason in kind.check(plain_map(inputs)).items()]
        return protocol.CheckResponse(inputs=inputs, failures=failures)

    async def diff(self, request: protocol.DiffRequest) -> protocol.DiffResponse:
        kind, old, new = self._kind(request.type), _old_inputs.get({}), plain_map(request.new_inputs)
        old = old or {key: value for key, value in plain_map(request.old_state).items() if key in new}
        changed = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
        replaces = [key for key in changed if key in kind.replace_on]
        return protocol.DiffResponse(
            changes=bool(changed),
            diffs=changed,
            replaces=replaces,
            delete_before_replace=bool(replaces) and kind.delete_before_replace,
            detailed_diff={key: _difference(key, old, new, replace=key in replaces) for key in changed},
        )

    async def create(self, request: protocol.CreateRequest) -> protocol.CreateResponse:
        kind = self._kind(request.type)
        if request.preview:
            return protocol.CreateResponse("", {**request.properties, **wrap_map(unknown_outputs(kind))})
        made = await asyncio.to_thread(kind.create, self._session(), request.name, plain_map(request.properties))
        return protocol.CreateResponse(made.id, {**request.properties, **wrap_map(made.outputs)})

    async def read(self, request: protocol.ReadRequest) -> protocol.ReadResponse:
        kind, inputs = self._kind(request.type), plain_map(request.inputs)
        made = await asyncio.to_thread(kind.read, self._session(), request.resource_id, inputs)
        if made is None:
            return protocol.ReadResponse("")
        observed = kind.observed(inputs, made.outputs)
        merged = {key: _same_secrecy(request.inputs.get(key), wrap(value)) for key, value in observed.items()}
        return protocol.ReadResponse(made.id, {**merged, **wrap_map(made.outputs)}, merged)

    async def update(self, request: protocol.UpdateRequest) -> protocol.UpdateResponse:
        kind = self._kind(request.type)
        if request.preview:
            return protocol.UpdateResponse({**request.olds, **request.news})
        old, new = plain_map(request.olds), plain_map(request.news)
        outputs = await asyncio.to_thread(kind.update, self._session(), request.resource_id, old, new)
        kept = {key: value for key, value in request.olds.items() if key in kind.computed}
        return protocol.UpdateResponse({**kept, **request.news, **wrap_map(outputs)})

    async def delete(self, request: protocol.DeleteRequest) -> None:
        kind = self._kind(request.type)
        await asyncio.to_thread(kind.delete, self._session(), request.resource_id, plain_map(request.properties))

    async def invoke(self, request: protocol.InvokeRequest) -> protocol.InvokeResponse:
        function = self._invokes.get(request.tok)
        if function is None:
            raise NotImplementedError(f"no function {request.tok!r} here")
        results = await asyncio.to_thread(function, self._session(), plain_map(request.args))
        return protocol.InvokeResponse(wrap_map(results))

    def _kind(self, token: str) -> ResourceKind[Session]:
        # A parented resource's URN holds "parent$type"; ours have no typed parents, but components may wrap them.
        kind = self._kinds.get(token.rpartition("$")[2])
        if kind is None:
            raise NotImplementedError(f"no resource type {token!r} here")
        return kind

    def _session(self) -> Session:
        return self._sessions[_peer.get()]


def _difference(key: str, old: Properties, new: Properties, *, replace: bool) -> protocol.PropertyDiff:
    kinds = protocol.PropertyDiffKind
    if key not in old:
        kind = kinds.ADD_REPLACE if replace else kinds.ADD
    elif key not in new:
        kind = kinds.DELETE_REPLACE if replace else kinds.DELETE
    else:
        kind = kinds.UPDATE_REPLACE if replace else kinds.UPDATE
    return protocol.PropertyDiff(kind, input_diff=True)


def _same_secrecy(stored: PropertyValue | None, seen: PropertyValue) -> PropertyValue:
    """A value that was secret stays secret; where nothing changed, the stored value is kept as it was."""
    if stored is None:
        return seen
    if plain_map({"": stored}) == plain_map({"": seen}):
        return stored
    return seen.with_secret(stored.contains_secret())


class _Servicer(ProviderServicer):
    """The SDK's servicer, with Attach, the peer of each call, and failures as messages instead of tracebacks."""

    async def Attach(self, request: Any, context: Any) -> empty_pb2.Empty:  # noqa: N802 (gRPC's names)
        return empty_pb2.Empty()

    async def DiffConfig(self, request: Any, context: Any) -> provider_pb2.DiffResponse:  # noqa: N802
        changed = request.olds != request.news
        some, none = provider_pb2.DiffResponse.DIFF_SOME, provider_pb2.DiffResponse.DIFF_NONE
        return provider_pb2.DiffResponse(changes=some if changed else none)


def _with_context(name: str) -> Any:
    original = getattr(ProviderServicer, name)

    async def call(self: _Servicer, request: Any, context: Any) -> Any:
        _peer.set(context.peer())
        if name == "Diff":
            _old_inputs.set(plain_map(PropertyValue.unmarshal_map(request.old_inputs)))
        try:
            return await original(self, request, context)
        except Exception as problem:
            await context.abort(grpc.StatusCode.UNKNOWN, str(problem) or type(problem).__name__)

    return call


for _name in ("Configure", "Check", "Diff", "Create", "Read", "Update", "Delete", "Invoke"):
    setattr(_Servicer, _name, _with_context(_name))


async def _serve(
    plugin: TablePlugin[Any], version: str, port: int, started: Callable[[int], None], *, with_parent: bool
) -> None:
    server = grpc.aio.server(options=_GRPC_CHANNEL_OPTIONS)
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(_Servicer([], version, plugin, ""), server)
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    loop, stop, orphaned = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if with_parent:

        def end() -> None:
            orphaned.set()
            stop.set()

        when_parent_ends(lambda: loop.call_soon_threadsafe(end))
    started(bound)
    await stop.wait()
    await server.stop(grace=_ORPHAN_GRACE_SECONDS if orphaned.is_set() else _GRACE_SECONDS)


def _print_port(port: int) -> None:
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()


def serve_plugin(plugin: TablePlugin[Any], *, version: str, port: int = 0, with_parent: bool = False) -> None:
    """Serve on loopback until SIGTERM; the first line on stdout is the port, as Pulumi's engine expects it.

    ``with_parent``: also until whoever started this process is gone; what an engine still waits for is then finished.
    """
    asyncio.run(_serve(plugin, version, port, _print_port, with_parent=with_parent))
