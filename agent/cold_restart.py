"""Where a guest's memory cannot be brought: its disk is, to the last acknowledged write, and it boots from there."""

from agent import fences, mirror
from agent.moves import MoveAgent
from agent.shards import ShardHost
from agent.wire import MoveCommand, ShardStatus, SourceStatus
from engine.errors import MoveFailed
from engine.model.ids import ShardId


class ColdRestartAgent:
    """Either end; each command may be repeated."""

    def __init__(self, host: ShardHost, moves: MoveAgent) -> None:
        self._host, self._moves = host, moves

    async def cease(self, shard: ShardId, command: MoveCommand) -> SourceStatus:
        """On the source: stop the guest and end the mirror, both disks are equal on return. Raises MoveFailed.

        Until the store has given the shard away the move can be given up, and the guest runs on.
        """
        async with self._moves.source.driven(shard, command) as here:
            status = await self._mirrored(shard)
            if not status.mirrored:
                await here.monitor.execute("stop")
                await self._mirrored(shard)  # again: what the guest wrote last may not have reached the other side
                await mirror.end(here)
        return await self._moves.source.status(shard)

    async def _mirrored(self, shard: ShardId) -> SourceStatus:
        """Raises MoveFailed unless the disk is on both sides."""
        status = await self._moves.source.status(shard)
        if not (status.mirrored or (status.mirror_present and status.mirror_ready)):
            raise MoveFailed(f"the disk of shard {shard} is not mirrored", why=status.error)
        return status

    async def restart(self, shard: ShardId, command: MoveCommand) -> ShardStatus:
        """The store says that the shard belongs here, and its memory will never come: boot it from the disk that came.

        A guest that has been told to run with all its memory is left alone, dead or not. Returns when the workload is
        up. Raises MoveFailed when the memory has come after all.
        """
        async with self._moves.destination.driven(shard, command, fences.may_commit) as here:
            if here.record.incoming or here.record.receiving:
                if (await self._moves.destination.status(shard)).arrived:
                    raise MoveFailed(f"the memory of shard {shard} has arrived", why="it is to be committed")
                await self._host.end_guest(here)
                here.save(incoming=False, receiving=False, move=None, booting=True)
            if here.record.booting:  # maybe since an earlier agent began it
                await self._host.boot(here)
        return await self._host.status(shard)
