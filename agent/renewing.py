"""Keeps a node's certificate valid for as long as its agent, or gateway, lives."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from agent.identity import Identity
from engine.clock import Clock
from engine.errors import ShardwrightError

_CHECK_SECONDS = 30.0
_LOG = logging.getLogger("agent.renewing")


async def keep_renewed(
    identity: Identity,
    agent_url: str,
    clock: Clock,
    *,
    load: Callable[[], None] = lambda: None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Renew at half life, until cancelled; join anew where the certificate ended before anybody could renew it.

    ``load`` is called for every certificate, until it succeeds. What is no ShardwrightError (a full disk) comes out:
    begun again, this goes on where it was.
    """
    loaded: str | None = None
    while True:
        if clock.now() >= identity.half_life():
            try:
                await _renewed(identity, agent_url)
            except ShardwrightError as problem:
                _LOG.warning("cannot renew the certificate yet: %s", problem)
        present = identity.certificate_file.read_text()
        if present != loaded:
            load()
            loaded = present
        await sleep(_CHECK_SECONDS)


async def _renewed(identity: Identity, agent_url: str) -> None:
    """With a certificate that has ended nobody lets us in to renew it: the control plane was away for too long."""
    if identity.usable():
        await identity.renew()
    else:
        await identity.join(agent_url)
