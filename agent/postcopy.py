"""Post-copy: the destination runs before all its memory is here, and what it touches is fetched from the source.

The pause before the switchover holds here too, so the store decides before anything of it is final: until
``migrate-continue`` a move in post-copy can be given up like any other. After it the source's QEMU never lets its guest
run again (tried: ``migrate_cancel`` stays "cancelling", ``cont`` is refused); a connection that breaks is mended, and a
source that dies takes the memory with it.
"""

from typing import TYPE_CHECKING

from agent import fences, landing_disk, network, sending
from agent.config import AgentConfig
from agent.monitor import GuestRefused
from agent.node_guest import Guest, quietly
from agent.wire import DestinationStatus, Landing, MirrorRequest, MoveCommand, SourceStatus
from engine.errors import MoveFailed
from engine.model.ids import ShardId

if TYPE_CHECKING:
    from agent.moves import MoveAgent

POST_COPY = "postcopy"
"""How QEMU's words begin while it goes on: postcopy-active, postcopy-paused, postcopy-recover."""
_PAUSED = "postcopy-paused"


class PostCopyAgent:
    """What post-copy needs beside the other commands of a move; each may be repeated."""

    def __init__(self, moves: "MoveAgent", config: AgentConfig) -> None:
        self._moves, self._config = moves, config

    async def claim(self, shard: ShardId, command: MoveCommand) -> DestinationStatus:
        """The store has given the shard here: the mirrored disk is the guest's own before its source sends the rest."""
        async with self._moves.destination.driven(shard, command, fences.may_commit) as here:
            if here.record.incoming:
                await landing_disk.close(here)
        return await self._moves.destination.status(shard)

    async def listen_again(self, shard: ShardId, command: MoveCommand) -> Landing:
        """Where the source may connect anew after the connection broke."""
        async with self._moves.destination.driven(shard, command) as here:
            if await here.migration() != _PAUSED:
                await quietly(here, "migrate-pause")
            port = network.free_port(self._config.underlay)
            await here.monitor.execute("migrate-recover", {"uri": f"tcp:{self._config.underlay}:{port}"})
            here.save(memory_port=port)
        return Landing(
            node=self._config.node,
            host=self._config.underlay,
            memory_port=port,
            disk_port=here.record.disk_port,
            post_copy=True,
        )

    async def send_again(self, shard: ShardId, request: MirrorRequest) -> SourceStatus:
        """Go on sending to where the destination listens now."""
        async with self._moves.source.driven(shard, request) as here:
            if await here.migration() != _PAUSED:
                await quietly(here, "migrate-pause")
            uri = f"tcp:{request.landing.host}:{request.landing.memory_port}"
            await here.monitor.execute("migrate", {"uri": uri, "resume": True})
        return await self._moves.source.status(shard)


async def capabilities(here: Guest, **wanted: bool) -> None:
    listed = [{"capability": name.replace("_", "-"), "state": state} for name, state in wanted.items()]
    await here.monitor.execute("migrate-set-capabilities", {"capabilities": listed})


async def allow_post_copy(here: Guest) -> bool:
    """False where the kernel keeps userfaultfd from unprivileged processes (vm.unprivileged_userfaultfd)."""
    try:
        await capabilities(here, postcopy_ram=True)
    except GuestRefused:
        return False
    return True


async def has_post_copy(here: Guest) -> bool:
    said = await here.monitor.execute("query-migrate-capabilities")
    return any(one["capability"] == "postcopy-ram" and one["state"] for one in said)


async def start_post_copy(here: Guest) -> None:
    """Raises MoveFailed where QEMU may have lost a page already: a guest that has run on cannot be compared."""
    if not sending.exact(here, await here.monitor.execute("query-migrate")):
        raise MoveFailed("no post-copy", why="memory may have been lost on its way, and could not be compared after it")
    await here.monitor.execute("migrate-start-postcopy")
