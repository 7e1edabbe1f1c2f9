"""The mirror of a moving guest's disk, at its source: every write goes to both sides before the guest hears of it.

QEMU keeps a mirror that has ended until it is dismissed, so that one that broke is never taken for one that was ended:
to a guest a write has succeeded also where only the other side has failed.
"""

import asyncio
from typing import Any

from agent.monitor import poll
from agent.move_side import LOOK_SECONDS, TLS
from agent.node_guest import Guest, quietly
from agent.wire import Landing
from engine.errors import MoveFailed

JOB = "mirror-move"
_TARGET = "target-move"
_END_SECONDS, _GIVE_UP_SECONDS = 30.0, 15.0
Job = dict[str, Any]
"""One of QEMU's block jobs, in its own words."""


async def start(here: Guest, landing: Landing) -> None:
    """The object TLS is there already; nothing of an earlier mirror is."""
    server = {"type": "inet", "host": landing.host, "port": str(landing.disk_port)}
    target = {"driver": "nbd", "node-name": _TARGET, "server": server, "export": "disk"}
    await here.monitor.execute("blockdev-add", target | {"tls-creds": TLS, "tls-hostname": landing.node})
    job = {"job-id": JOB, "device": "d0", "target": _TARGET, "sync": "full", "copy-mode": "write-blocking"}
    await here.monitor.execute("blockdev-mirror", job | {"auto-dismiss": False})


def under_way(jobs: list[Job]) -> Job | None:
    """Of what ``query-block-jobs`` says."""
    return next((job for job in jobs if job["device"] == JOB and not _concluded(job)), None)


async def end(here: Guest) -> None:
    """Of a guest that stands still, while its mirror is ready: both disks are equal on return. Raises MoveFailed.

    Told and asked in one go: where nothing was left to copy, the end is behind QEMU when it is asked.
    """
    _, ended = await asyncio.gather(quietly(here, "block-job-cancel", device=JOB), _has_ended(here))
    if not ended:
        what = "the end of the mirror"
        await poll(lambda: _has_ended(here), seconds=_END_SECONDS, every=LOOK_SECONDS, what=what, woken_by=here.monitor)
    here.mirrored = True


async def give_up(here: Guest) -> None:
    """Whatever becomes of the other side; nothing of it is left on return."""
    await quietly(here, "block-job-cancel", device=JOB, force=True)

    async def stopped() -> bool:
        return under_way(await here.monitor.execute("query-block-jobs")) is None

    await poll(stopped, seconds=_GIVE_UP_SECONDS, what="giving up the mirror")
    await forget(here)


async def forget(here: Guest) -> None:
    """What one that has ended leaves behind."""
    await quietly(here, "job-dismiss", id=JOB)
    await quietly(here, "blockdev-del", node_name=_TARGET)


async def _has_ended(here: Guest) -> bool:
    """Raises MoveFailed for one that has ended in an error. One that is gone was dismissed by QEMU (older agents)."""
    jobs: list[Job] = await here.monitor.execute("query-block-jobs")
    for job in jobs:
        if job["device"] == JOB and _concluded(job) and job.get("error"):
            raise MoveFailed("the mirror of the disk broke off", why=str(job["error"]))
    return under_way(jobs) is None


def _concluded(job: Job) -> bool:
    return job.get("status") in ("concluded", "null")
