"""The embedded sandbox and the rounds that run on it, or on a configuration of the user's own."""

import contextlib
import errno
import random
import shutil
import socket
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from engine.app.configured import CONFIGURATION_NAME, configuration_here, load, stored_view
from engine.app.leaving import end_children, interruptible, undisturbed
from engine.clock import SystemClock
from engine.config import Configuration, load_configuration
from engine.errors import ConfigurationError, ShardwrightError, UsageError
from engine.events import Event
from engine.round_record import RoundRecord

if TYPE_CHECKING:
    from engine.store.opened import Store

Say = Callable[[str], None]
EMBEDDED_NAME = "sw"
_LOWEST_PORT, _PORT_TRIES = 20_000, 20
_NO_NAMES = "names cannot be answered"
CONTROL_FOLDER = "control"
"""Beside the configuration of an embedded sandbox: the state of its control plane."""


def sandbox_up(state: Path, *, seed: int, meter_speed: float, say: Say) -> Path:
    """Start a sandbox that outlives this command; the configuration that points at it."""
    from providers.sandbox import supervisor

    port = free_port()
    info = supervisor.start(
        state.resolve(),
        seed=seed,
        meter_speed=Decimal(str(meter_speed)),
        control_ports=(port,),
        outlive=True,
        progress=say,
    )
    from providers.sandbox.configuration import write_configuration

    try:
        return write_configuration(
            info,
            state.resolve() / CONFIGURATION_NAME,
            name=EMBEDDED_NAME,
            state_directory=state.resolve() / CONTROL_FOLDER,
            control_port=port,
        )
    except BaseException:
        supervisor.stop(state.resolve())
        raise


def sandbox_down(state: Path) -> None:
    """With the state of the control plane that ran on it, which would name nodes that are gone.

    Raises ShardwrightError naming what could not be taken away.
    """
    from providers.sandbox import supervisor
    from providers.sandbox.configuration import remove_configuration

    left = supervisor.stop(state.resolve())
    if left:
        raise ShardwrightError(
            "the sandbox left something behind",
            why=", ".join(map(str, left)),
            next_step=f"shardwright sandbox down --state {state}",
        )
    if remove_configuration(state / CONFIGURATION_NAME):
        shutil.rmtree(state / CONTROL_FOLDER, ignore_errors=True)
        with contextlib.suppress(OSError):
            state.rmdir()  # where nothing else is in it


def require_parts() -> None:
    """What every sandbox needs of this machine; before anything is started. Raises MissingPart."""
    from agent.image import require_kernel
    from stacks.engine_binary import require_engine

    require_engine()
    require_kernel()


@contextmanager
def embedded_configuration(usage: Path | None, metric: str | None, say: Say) -> Iterator[Configuration]:
    """A sandbox for the length of the context, with nothing of it left afterwards."""
    from providers.sandbox import supervisor
    from providers.sandbox.configuration import write_configuration

    require_parts()
    state = Path(tempfile.mkdtemp(prefix="shardwright-"))
    port = free_port()
    try:
        say("no configuration is given: starting the embedded sandbox")
        info = supervisor.start(state / "sandbox", seed=7, control_ports=(port,), progress=say)
        path = write_configuration(
            info,
            state / CONFIGURATION_NAME,
            name=EMBEDDED_NAME,
            state_directory=state / CONTROL_FOLDER,
            control_port=port,
            usage=usage,
            metric=metric,
        )
        yield load_configuration(path)
    finally:
        with undisturbed():
            supervising = supervisor.pid_of(state / "sandbox")
            end_children(spared=() if supervising is None else (supervising,))
            supervisor.stop(state / "sandbox")
            shutil.rmtree(state, ignore_errors=True)


def run_rounds(
    config: Path | None,
    *,
    rounds: int,
    usage: Path | None,
    metric: str | None,
    every_seconds: float,
    serve: bool,
    say: Say,
) -> Generator[RoundRecord, None, None]:
    """Records as rounds end. With ``serve`` it stays until interrupted, with the web page up."""

    def observe(event: Event) -> None:
        say(f"{event.step}: {event.text}")

    with interruptible(), ExitStack() as stack:
        if config is None and configuration_here() is None:
            require_usage(usage, metric)
            configuration = stack.enter_context(embedded_configuration(usage, metric, say))
        else:
            configuration = with_usage(load(config), usage, metric)
            if not configuration.forecast.sources:
                require_usage(configuration.forecast.usage, configuration.forecast.metric)
        if serve:
            _require_free_ports(configuration)
        from engine.app.control import control_plane  # only now: it loads what takes seconds

        plane = stack.enter_context(control_plane(configuration, observe))
        if serve:
            url = stack.enter_context(web_page(configuration, plane.store))
            say(f"web page: {url}")
            say(f"names over DNS: {stack.enter_context(dns_server(configuration, plane.store))} (UDP and TCP)")
        yield from plane.rounds(rounds, every_seconds=every_seconds, stays=serve)
        while serve:
            plane.clock.sleep(3600)


def _require_free_ports(configuration: Configuration) -> None:
    """Before unfinished rounds go on: what could not serve afterwards must not buy first. Raises ConfigurationError."""
    from engine.namespace.dns_server import bound

    control = configuration.control
    _listen(control.web_port).close()
    try:
        sockets = bound("127.0.0.1", control.dns_port)
    except OSError as problem:
        raise _taken(_NO_NAMES, "dns_port", control.dns_port, problem) from problem
    for one in sockets:
        one.close()


@contextmanager
def web_page(configuration: Configuration, store: object) -> Iterator[str]:
    """Serve the API and the pages on loopback from a thread; its URL."""
    import threading

    import uvicorn

    from engine.api.app import control_app
    from engine.store.opened import Store

    assert isinstance(store, Store)
    listener = _listen(configuration.control.web_port)
    app = control_app(stored_view(configuration, store))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="web", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join(3)


@contextmanager
def dns_server(configuration: Configuration, store: "Store") -> Iterator[str]:
    """Answer A and SRV questions on loopback, over UDP and TCP; where. Raises ConfigurationError."""
    from agent.guest_scripts import RECORD_PORT
    from engine.composition.standing_now import StandingNow
    from engine.namespace.dns_server import DnsServer
    from engine.namespace.resolver import Resolver

    resolver = Resolver(store.shard_map, StandingNow(store, SystemClock()))
    try:
        server = DnsServer(resolver, port=configuration.control.dns_port, service_port=RECORD_PORT)
    except OSError as problem:
        raise _taken(_NO_NAMES, "dns_port", configuration.control.dns_port, problem) from problem
    try:
        yield f"127.0.0.1:{server.port}"
    finally:
        server.close()


def _listen(port: int) -> socket.socket:
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError as problem:
        raise _taken("the web page cannot listen", "web_port", port, problem) from problem


def _taken(what: str, key: str, port: int, problem: OSError) -> ConfigurationError:
    return ConfigurationError(
        f"{what} on 127.0.0.1:{port}",
        why=problem.strerror or str(problem),
        next_step=f"set control.{key} to a free port, or to 0 for any",
    )


def require_usage(usage: Path | None, metric: str | None) -> None:
    """Before anything is started or bought. Raises UsageError where the usage history cannot be read."""
    if usage is None:
        if metric is not None:
            raise UsageError(
                f"there is no usage history to take {metric!r} from",
                why="--metric names a column of a file, and none is given",
                next_step=f"shardwright run --usage FILE --metric {metric}",
            )
        return
    from forecasting.usage import read_usage

    read_usage(usage, metric=metric)


def with_usage(configuration: Configuration, usage: Path | None, metric: str | None) -> Configuration:
    """The configuration with the command line's usage history in place of its own, sources included."""
    if usage is None and metric is None:
        return configuration
    table = configuration.forecast
    sources = () if usage is not None else table.sources
    changed = table.model_copy(
        update={"usage": usage or table.usage, "metric": metric or table.metric, "sources": sources}
    )
    return configuration.model_copy(update={"forecast": changed})


def free_port() -> int:
    """On loopback, for a listener that comes later, and again and again.

    From below the range out of which the kernel gives every program ports unasked: one of those would soon be taken.
    """
    lowest_unasked = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    candidates = range(_LOWEST_PORT, lowest_unasked)
    for port in (*random.SystemRandom().sample(candidates, k=min(_PORT_TRIES, len(candidates))), 0):
        try:
            with socket.create_server(("127.0.0.1", port)) as probe:
                return int(probe.getsockname()[1])
        except OSError as problem:
            if problem.errno != errno.EADDRINUSE:
                raise
    raise AssertionError("unreachable: port 0 is any that is free")
