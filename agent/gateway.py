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
from agent.renewing import keep_renewed
from engine.clock import SystemClock
from engine.errors import ShardwrightError

READY = "ready"


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
    url = f"https://{config.underlay}"
    await identity.join(url)
    sync = OverlaySync(overlay, config.endpoint, identity.overlay)
    ending = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ending.set)
    tasks = [
        loops.begin("following the overlay", sync.run),
        loops.begin("renewing the certificate", lambda: keep_renewed(identity, url, clock)),
        loops.begin("saying that it is ready", lambda: _announce(sync)),
    ]
    await ending.wait()
    await loops.end(tasks)


async def _announce(sync: OverlaySync) -> None:
    await sync.ready.wait()
    print(READY, flush=True)


if __name__ == "__main__":
    sys.exit(main())
