"""``python -m agent --config FILE``: join, then serve until SIGTERM. Guests run on unless told otherwise."""

import argparse
import asyncio
import ctypes
import logging
import os
import random
import signal
import socket
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

import uvicorn

from agent import loops
from agent.app import AgentApi
from agent.config import AgentConfig, load
from agent.health import HealthKeeper
from agent.identity import Identity
from agent.keeping import Keeper
from agent.leases import LeaseKeeper
from agent.metadata import WELL_KNOWN_URL, MetadataAddress
from agent.overlay import open_overlay
from agent.overlay_sync import OverlaySync
from agent.peer import PeerProtocol, server_context
from agent.reclaim import EVERY_SECONDS, MetadataWatch, watch
from agent.renewing import keep_renewed
from agent.shards import ShardHost
from engine.clock import SystemClock
from engine.errors import ConfigurationError, ShardwrightError

_CLOSING_SECONDS = 1.0
_MMAP_THRESHOLD, _ARENA_MAX = -3, -8
_LARGE_BYTES, _ARENAS = 128 * 1024, 2
_LOG = logging.getLogger("agent")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="agent", description="Run a Shardwright node agent.")
    parser.add_argument("--config", type=Path, required=True, help="JSON file, mode 0600")
    parser.add_argument("--stop-guests-on-exit", action="store_true", help="end every guest when the agent ends")
    options = parser.parse_args(arguments)
    stay_small()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL)
    try:
        asyncio.run(_serve_and_leave(load(options.config), stop_guests_on_exit=options.stop_guests_on_exit))
    except ShardwrightError as error:
        print(f"agent: {error}", file=sys.stderr)
        return int(error.exit_code)
    return 0


async def _serve_and_leave(config: AgentConfig, *, stop_guests_on_exit: bool) -> None:
    await serve(config, stop_guests_on_exit=stop_guests_on_exit)
    # asyncio would wait for its threads, and one of them may wait for a name server or a disk for half a minute.
    # Nothing needs it: what is half done the next agent finds, as after a crash.
    logging.shutdown()
    os._exit(0)


def stay_small() -> None:
    """Give what large bodies took back to the node at once: glibc would keep some 15 MB of it after a move.

    It learns from the first large block that is freed to keep the next ones, unless the threshold is set by hand.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)
        mallopt(_ARENA_MAX, _ARENAS)


async def serve(config: AgentConfig, *, stop_guests_on_exit: bool = False) -> None:
    """Until SIGTERM or SIGINT."""
    clock = SystemClock()
    config.work.mkdir(parents=True, exist_ok=True, mode=0o700)
    host_name = config.listen_host or config.underlay
    listener = _listen(host_name, config.listen_port)
    metadata_url = config.metadata_url or WELL_KNOWN_URL.get(config.metadata_flavour)
    vouched = MetadataAddress(metadata_url, config.metadata_flavour) if metadata_url else None
    identity = Identity(config, clock, random.Random(), vouched)  # noqa: S311 - jitter only
    overlay = await asyncio.to_thread(
        open_overlay, config.node, config.work, config.overlay_port, underlay_mtu=config.underlay_mtu
    )
    host = ShardHost(config, overlay)
    # The socket listens before anyone is told of it: whoever calls at once waits instead of being refused.
    agent_url = f"https://{host_name}:{listener.getsockname()[1]}"
    await identity.join(agent_url)
    tls = server_context(
        certificate=identity.certificate_file, key=identity.key_file, ca=identity.ca_file, client_certificate=True
    )
    api = AgentApi(config, host, clock.now())
    server = uvicorn.Server(
        uvicorn.Config(
            api.app(),
            http=PeerProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=60,
            timeout_graceful_shutdown=1,
            ssl_context_factory=lambda _config, _default: tls,
        )
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn catches both, and raises them again when it has ended, for whoever had them before: without this the
        # process would be over by then.
        asyncio.get_running_loop().add_signal_handler(number, partial(setattr, server, "should_exit", True))
    load = partial(tls.load_cert_chain, identity.certificate_file, identity.key_file)
    tasks = [
        loops.begin("renewing the certificate", lambda: keep_renewed(identity, agent_url, clock, load=load)),
        loops.begin("looking at moves", Keeper(host, api.moves, identity.keep).run),
        loops.begin("checking health", HealthKeeper(host, identity.report_health, beside=api.volumes.health).run),
        loops.begin("serving disks", api.volumes.run),
        loops.begin("renewing disks' connections", api.attacher.run),
    ]
    if overlay is not None:
        sync = OverlaySync(overlay, config.endpoint, identity.overlay)
        tasks.append(loops.begin("following the overlay", sync.run))
    if metadata_url:
        reclaim = partial(_watch_for_reclaim, metadata_url, config, identity, clock)
        tasks.append(loops.begin("watching for a reclaim", reclaim))
    if config.run_lease_seconds is not None:
        keeper = LeaseKeeper(host, identity.renew_leases, config.run_lease_seconds)
        tasks.append(loops.begin("renewing run leases", keeper.keep))
    try:
        await server.serve(sockets=[listener])
    finally:
        await loops.end(tasks)
        if vouched is not None:
            await vouched.close()
        if stop_guests_on_exit:
            await host.stop_all()
        with suppress(TimeoutError):
            await asyncio.wait_for(host.close(), _CLOSING_SECONDS)


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(64)
    except OSError as problem:
        listener.close()
        raise ConfigurationError(f"cannot listen on {host}:{port}", why=problem.strerror or "") from problem
    return listener


async def _watch_for_reclaim(url: str, config: AgentConfig, identity: Identity, clock: SystemClock) -> None:
    metadata = MetadataWatch(url, config.metadata_flavour, config.node, clock)
    try:
        every = EVERY_SECONDS[config.metadata_flavour]
        notice = await watch(metadata.look, identity.report_notice, every_seconds=every)
        _LOG.warning("this node is taken back at %s (%s)", notice.at.isoformat(), notice.reason)
    finally:
        await metadata.close()


if __name__ == "__main__":
    sys.exit(main())
