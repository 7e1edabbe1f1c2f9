"""Are a shard's limits kept within 5 %, as its guest counts it, while they change; and what does an idle agent cost?

    python -m benchmarks.shard_limits [--seconds 8] [--idle-seconds 30] [--slices | --awake]

Root, QEMU and network namespaces are needed. Prints one line of JSON a figure. CPU is told two ways: by the guest,
whose rounds a second are divided by what one second of processor time gave without a limit just before and just after
(this machine's own speed changes by several percent within a minute), and by the kernel's count of QEMU's own processor
time; the median of three of each. With --slices a quarter of a core is measured at several periods instead: how much
does a guest lose to the length of its slices? With --awake only the processor is measured, while nothing lets this
machine's own processors sleep: where they are another machine's guests, waking them takes time that counts as used.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import mean, median
from threading import Thread
from typing import Any

import structlog

from agent import console
from agent.guest import RUN_FOLDER, GuestRecord
from agent.limits import group_name
from agent.wire import ShardStatus
from engine.model.capacity import Resources
from engine.model.ids import NodeId
from tests.small_fleet import SmallFleet

NODE = NodeId("nA")
FREE = Resources(vcpus=1.0, memory_gib=0.125, storage_iops=0, network_mbps=0)
SHARES = (0.25, 0.5)
PERIODS_MS = (20, 100, 150, 200, 250)
"""Of a quarter of a core; the second is what control groups have by default, the fourth what agent.limits chooses."""
SETTINGS: tuple[tuple[str, tuple[float, ...]], ...] = (
    ("storage_iops", (50.0, 200.0)),
    ("network_mbps", (5.0, 20.0)),
)
Say = Callable[..., None]
"""Told every figure, by name."""
_REPEATS = 3
_SPARED_KIB = 8192
"""Of what a guest calls available; a guest that is filled to the brim ends programs."""
_MOST_SHARES = "262144"
_CGROUPS = Path("/sys/fs/cgroup")
_TICKS = os.sysconf("SC_CLK_TCK")


class Bench:
    """One shard on one node, set this way and that."""

    def __init__(self, fleet: SmallFleet, seconds: int, say: Say) -> None:
        self._fleet, self._seconds, self._say = fleet, seconds, say
        _, status = fleet.carve("bench", NODE, FREE, disk_mib=64)
        self.shard = status.shard
        say(what="boot, s", measured=status.measured.boot_seconds, load=os.getloadavg()[0])
        self.group = group_name(fleet.agent_folder(NODE), NODE, self.shard)
        folder = fleet.agent_folder(NODE) / "shards" / self.shard
        self._pid = GuestRecord.model_validate_json((folder / "shard.json").read_bytes()).pid

    def run(self) -> None:
        self.processor()
        for name, settings in SETTINGS:
            for setting in settings:
                measured = self._measured(FREE.model_copy(update={name: setting}))[0].measured
                guest = measured.read_iops if name == "storage_iops" else measured.receive_mbps
                compare(self._say, name, setting, guest)
                if name == "network_mbps":
                    compare(self._say, "network_mbps, sent", setting, measured.send_mbps)
        self._memory()

    def processor(self) -> None:
        for share in SHARES:
            self._share(share)

    def slices(self) -> None:
        for period_ms in PERIODS_MS:
            self._share(SHARES[0], period_ms)

    def _share(self, share: float, period_ms: int | None = None) -> None:
        """``period_ms``: of the control group, instead of what the agent has chosen."""
        by_the_guest: list[float] = []
        by_the_kernel: list[float] = []
        before = self._rounds_per_second_used()
        for _ in range(_REPEATS):
            rounds, used = self._rounds(share, period_ms)
            after = self._rounds_per_second_used()
            by_the_guest.append(rounds / mean((before, after)))
            by_the_kernel.append(used)
            before = after
        compare(self._say, "vcpus", share, median(by_the_guest), by_the_kernel=round(median(by_the_kernel), 3),
                each_by_the_guest=[round(one, 3) for one in by_the_guest], free_rounds=round(before),
                **({} if period_ms is None else {"period_ms": period_ms}))  # fmt: skip

    def _rounds_per_second_used(self) -> float:
        rounds, used = self._rounds(0.0)
        return rounds / used

    def _rounds(self, share: float, period_ms: int | None = None) -> tuple[float, float]:
        """(the guest's rounds a second, the share of a processor that its QEMU used); a share of 0 is no limit."""
        status, used = self._measured(FREE.model_copy(update={"vcpus": share}), period_ms)
        return status.measured.cpu_rounds_per_second or 0.0, used

    def _measured(self, wanted: Resources, period_ms: int | None = None) -> tuple[ShardStatus, float]:
        """What the guest measured, and the share of a processor that its QEMU used while the guest counted rounds."""
        client = self._fleet.clients(NODE)
        client.resize(self.shard, 1, wanted)
        if period_ms is not None:
            set_period(self.group, period_ms * 1000, wanted.vcpus)
        watched: list[float] = []

        def watch() -> None:
            time.sleep(1.0)
            start, at = processor_seconds(self._pid), time.monotonic()
            time.sleep(self._seconds - 2.0)
            watched.append((processor_seconds(self._pid) - start) / (time.monotonic() - at))

        thread = Thread(target=watch)
        thread.start()
        status = client.measure(self.shard, 1, self._seconds)
        thread.join()
        return status, watched[0]

    def _memory(self) -> None:
        """What the guest counts, and what it can fill: it grows and shrinks while the guest runs."""
        for memory_gib in (0.125, 0.25, 0.1875, 0.125):
            began = time.monotonic()
            wanted = FREE.model_copy(update={"memory_gib": memory_gib})
            seen = self._fleet.clients(NODE).resize(self.shard, 1, wanted).measured.memory_mib or 0
            seconds, limit = time.monotonic() - began, round(memory_gib * 1024)
            run = self._fleet.disk(NODE, self.shard).parent / RUN_FOLDER
            free = asyncio.run(console.ask(run, "memory 1", "available_kib", 1)) - _SPARED_KIB
            held = asyncio.run(console.ask(run, f"hold {free}", "held_kib", 60)) // 1024
            asyncio.run(console.ask(run, "hold 0", "held_kib", 1))
            self._say(what="memory_mib", setting=limit, by_the_guest=seen, filled_by_the_guest=held,
                      changed_in_seconds=round(seconds, 2), kept=held < seen <= limit)  # fmt: skip
        for path in ("memory/shardwright/{}/memory.limit_in_bytes", "shardwright/{}/memory.max"):
            file = _CGROUPS / path.format(self.group)
            if file.exists():
                self._say(what="memory of the whole QEMU, MiB", setting=int(file.read_text()) >> 20)


def set_period(group: str, period_us: int, share: float) -> None:
    """As agent.limits does, whose choice this replaces until the next resize."""
    quota = int(share * period_us)
    legacy, unified = _CGROUPS / "cpu/shardwright" / group, _CGROUPS / "shardwright" / group / "cpu.max"
    if unified.exists():
        unified.write_text(f"{quota} {period_us}")
    else:
        (legacy / "cpu.cfs_period_us").write_text(str(period_us))
        (legacy / "cpu.cfs_quota_us").write_text(str(quota))


@contextmanager
def precedence(group: Path) -> Iterator[None]:
    """Shards before everything else on this machine, so that other programs do not take what a limit would leave them.

    Control groups of version 1 alone; elsewhere, and on an idle machine, it changes nothing.
    """
    files = [folder / "cpu.shares" for folder in (group.parent, group) if (folder / "cpu.shares").exists()]
    before = [file.read_text() for file in files]
    try:
        for file in files:
            file.write_text(_MOST_SHARES)
        yield
    finally:
        for file, value in zip(files, before, strict=True):
            with suppress(OSError):
                file.write_text(value)


@contextmanager
def awake() -> Iterator[None]:
    """Every processor has something to do, which gives way to everything else."""
    loops = [subprocess.Popen(["/bin/sh", "-c", "while :; do :; done"]) for _ in range(os.cpu_count() or 1)]
    try:
        for loop in loops:
            os.sched_setscheduler(loop.pid, os.SCHED_IDLE, os.sched_param(0))
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def idle(fleet: SmallFleet, seconds: float, say: Say) -> None:
    """What the agent itself uses while nothing is asked of it."""
    pid = fleet.agents[NODE].pid
    before = processor_seconds(pid)
    time.sleep(seconds)
    share = (processor_seconds(pid) - before) / seconds
    resident = fleet.clients(NODE).status().resident_bytes / 1e6
    say(what="idle agent, share of a core", measured=round(share, 4), bar=0.01, reached=share < 0.01)
    say(what="idle agent, MB resident", measured=round(resident, 1), bar=80, reached=resident < 80)


def compare(say: Say, name: str, setting: float, measured: float | None, **more: Any) -> None:
    off = None if measured is None else measured / setting - 1
    kept = off is not None and abs(off) <= 0.05
    say(what=name, setting=setting, measured=None if measured is None else round(measured, 3),
        off_percent=None if off is None else round(100 * off, 1), within_5_percent=kept, **more)  # fmt: skip


def run(seconds: int, idle_seconds: float, say: Say) -> None:
    with _bench(seconds, say, idle_seconds) as bench:
        bench.run()


@contextmanager
def _bench(seconds: int, say: Say, idle_seconds: float = 0.0) -> Iterator[Bench]:
    with tempfile.TemporaryDirectory(prefix="swt-") as folder, SmallFleet(Path(folder), nodes=(NODE,)) as fleet:
        if idle_seconds:
            idle(fleet, idle_seconds, say)
        bench = Bench(fleet, seconds, say)
        with precedence(_CGROUPS / "cpu/shardwright" / bench.group):
            yield bench


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure a shard's limits and the idle agent.")
    parser.add_argument("--seconds", type=int, default=8, help="for each resource at each setting; 3 to 20")
    parser.add_argument("--idle-seconds", type=float, default=30.0)
    one = parser.add_mutually_exclusive_group()
    one.add_argument("--slices", action="store_true", help="a quarter of a core at several periods, nothing else")
    one.add_argument("--awake", action="store_true", help="the processor alone, on processors that never sleep")
    options = parser.parse_args()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))

    def say(**what: Any) -> None:
        print(json.dumps(what), flush=True)

    if options.slices:
        with _bench(options.seconds, say) as bench:
            bench.slices()
    elif options.awake:
        with _bench(options.seconds, say) as bench, awake():
            bench.processor()
    else:
        run(options.seconds, options.idle_seconds, say)


if __name__ == "__main__":
    main()
