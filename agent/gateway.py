"""``python -m agent.gateway --config FILE``: this host gets an address on the overlay of one namespace, and carries no
shards. For clients of shards, and for services that lead to them.

Joins by the one-use token in the file, then keeps the overlay at the control plane's newest view until SIGTERM. Writes
``ready`` to standard output once it is on the overlay, whose links stay when it ends.
"""

import argparse
import asyncio
import logging
import random
import signal
import sys
from pathlib import Path

from agent import loops
from agent.config import load
from agent.identity import Identity
from agent.overlay import Overlay
from agent.overlay_sync import OverlaySync
from engine.clock import SystemClock
from engine.errors import ShardwrightError

READY = "ready"
_RENEW_CHECK_SECONDS = 30.0
_LOG = logging.getLogger("agent.gateway")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m agent.gateway", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="JSON file, mode 0600: shardwright gateway add")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        asyncio.run(serve(options.config))
    except ShardwrightError as error:
        print(f"gateway: {error}", file=sys.stderr)
        return int(error.exit_code)
    return 0


async def serve(path: Path) -> None:
    """Until SIGTERM or SIGINT. Raises ShardwrightError: without an overlay there is nothing to do."""
    config, clock = load(path), SystemClock()
    config.work.mkdir(parents=True, exist_ok=True, mode=0o700)
    overlay = Overlay(config.node, config.work, config.overlay_port, underlay_mtu=config.underlay_mtu, gateway=True)
    identity = Identity(config, clock, random.Random())  # noqa: S311 - jitter only
    await identity.join(f"https://{config.underlay}")
    sync = OverlaySync(overlay, config.endpoint, identity.overlay)
    ending = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ending.set)
    tasks = [
        loops.begin("following the overlay", sync.run),
        loops.begin("renewing the certificate", lambda: _keep_renewed(identity, clock)),
        loops.begin("saying that it is ready", lambda: _announce(sync)),
    ]
    await ending.wait()
    await loops.end(tasks)


async def _announce(sync: OverlaySync) -> None:
    await sync.ready.wait()
    print(READY, flush=True)


async def _keep_renewed(identity: Identity, clock: SystemClock) -> None:
    while True:
        if clock.now() >= identity.half_life():
            try:
                await identity.renew()
            except ShardwrightError as problem:
                _LOG.warning("cannot renew the certificate yet: %s", problem)
        await asyncio.sleep(_RENEW_CHECK_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
