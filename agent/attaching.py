"""Attaching a storage shard's disk to a guest that runs, and keeping its connection's certificate fresh."""

import asyncio
import logging

from agent import guest
from agent.attached_disk import (
    ATTACHED_TLS,
    DEVICE,
    FILTER,
    client_options,
    device_options,
    filter_options,
    group_options,
    tls_name,
    tls_options,
    written_at,
)
from agent.monitor import GuestRefused, poll
from agent.node_guest import Guest, quietly
from agent.shards import ShardHost
from agent.wire import AttachedDisk, AttachRequest, ShardStatus
from engine.errors import MoveFailed, NotFound, ShardwrightError, StaleEpoch, UsageError
from engine.model.ids import ShardId

EVERY_SECONDS = 5.0
_NOTICE_SECONDS = 10.0
"""Under TCG a guest takes about a tenth of a second to find a new device."""
_LOG = logging.getLogger("agent.attaching")


def may_attach(present: AttachedDisk | None, wanted: AttachedDisk) -> bool:
    """Whether there is anything to do. Raises StaleEpoch for an older attachment, UsageError for another disk."""
    if present is None:
        return True
    if present.storage != wanted.storage:
        raise UsageError(f"the shard's data is on {present.storage}", why=f"asked for {wanted.storage}")
    if wanted.epoch < present.epoch:
        raise StaleEpoch(f"{present.storage} is attached at epoch {present.epoch}", why=f"asked for {wanted.epoch}")
    return wanted != present


class Attacher:
    """Over the same guests as ShardHost."""

    def __init__(self, host: ShardHost) -> None:
        self._host = host
        self._tls = host.config.work / "tls"

    async def attach(self, shard: ShardId, request: AttachRequest) -> ShardStatus:
        """The guest sees the disk as a second one on return. The same again changes nothing.

        A guest whose process is gone gets it when it is booted. Raises NotFound, StaleEpoch, UsageError, GuestRefused.
        """
        self._host.epochs.accept(shard, request.epoch)
        here = self._host.guest(shard)
        async with here.busy:
            if may_attach(here.record.attached, request.disk):
                before = here.record.attached
                moved = before is None or (before.host, before.port) != (request.disk.host, request.disk.port)
                if here.alive and moved:
                    await self._connect(here, request.disk)
                here.save(attached=request.disk)
        return await self._host.status(shard)

    async def run(self) -> None:
        """Renew connections' certificates, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(EVERY_SECONDS)

    async def look(self) -> None:
        """Give every attached disk a connection with the node's present certificate; a failure is tried again."""
        for shard, here in list(self._host.guests.items()):
            record = here.record
            if record.attached is None or record.move is not None or here.busy.locked() or not here.alive:
                continue
            if record.attached_with == written_at(self._tls):
                continue
            try:
                async with here.busy:
                    await self._connect(here, record.attached)
                _LOG.info("shard %s: the connection to %s has a fresh certificate", shard, record.attached.storage)
            except (ShardwrightError, GuestRefused) as problem:
                _LOG.warning("shard %s keeps its connection to %s: %s", shard, record.attached.storage, problem)

    async def _connect(self, here: Guest, disk: AttachedDisk) -> None:
        """A new NBD client; the filter and the device above it stay where they are already."""
        execute = here.monitor.execute
        known = {one["node-name"] for one in await execute("query-named-block-nodes", {"flat": True})}
        old = [int(name.removeprefix("remote-")) for name in known if name.startswith("remote-")]
        number = max(old, default=-1) + 1
        user = guest.user_for(here.folder, here.record.profile.accelerator)
        stamp = written_at(self._tls)
        await asyncio.to_thread(guest.lend_tls, self._tls, here.folder, user, ATTACHED_TLS)
        await execute("object-add", tls_options(number))
        try:
            await execute("blockdev-add", client_options(disk, number))
        except (GuestRefused, NotFound):
            await quietly(here, "object-del", id=tls_name(number))
            raise
        if FILTER in known:
            await execute("blockdev-reopen", {"options": [filter_options(number)]})
        else:
            await quietly(here, "object-add", **group_options())
            await execute("blockdev-add", filter_options(number))
        devices = {one["name"] for one in await execute("qom-list", {"path": "/machine/peripheral"})}
        if DEVICE not in devices:
            await execute("device_add", device_options())
            await _taken_up(here)
        for one in old:
            await quietly(here, "blockdev-del", node_name=f"remote-{one}")
            await quietly(here, "object-del", id=tls_name(one))
        here.save(attached_with=stamp)


async def _taken_up(here: Guest) -> None:
    """Wait until the guest has read from its new disk: a kernel looks for partitions when it finds one."""

    async def read() -> bool:
        return any(
            DEVICE in one.get("qdev", "") and one["stats"]["rd_operations"] > 0
            for one in await here.monitor.execute("query-blockstats")
        )

    try:
        await poll(read, seconds=_NOTICE_SECONDS, every=0.02)
    except MoveFailed:
        _LOG.warning("shard %s: the guest takes no notice of its new disk", here.record.shard)
