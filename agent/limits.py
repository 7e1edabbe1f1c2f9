"""CPU and memory limits of a guest process through control groups, version 1 or 2, whichever this host has."""

import errno
import hashlib
import time
from pathlib import Path

from engine.model.ids import NodeId, ShardId

_PERIOD_US, _LONGEST_PERIOD_US, _SLICE_US = 100_000, 250_000, 62_500
"""What a guest may use of a processor it gets in slices, one a period, with caches that are cold at the start of each:
under TCG about a millisecond of work a slice. So a small share gets a longer period, up to where a busy guest would
stand still for too long; docs/performance.md has the figures."""
_PARENT = "shardwright"
_REMOVAL_TRIES, _REMOVAL_PAUSE = 100, 0.02
"""A process that has ended leaves its group a little later."""


class Cgroups:
    """One group per shard. Where nothing can be enforced (not root, no controllers) every call does nothing."""

    def __init__(self, mountinfo: Path = Path("/proc/self/mountinfo")) -> None:
        self._unified: Path | None = None
        self._legacy: dict[str, Path] = {}
        for line in mountinfo.read_text().splitlines():
            left, _, right = line.partition(" - ")
            mounted, (kind, _source, options) = Path(left.split()[4]), right.split()[:3]
            if kind == "cgroup2" and {"cpu", "memory"} <= _words(mounted / "cgroup.controllers"):
                self._unified = mounted
            if kind == "cgroup":
                for controller in {"cpu", "memory"} & set(options.split(",")):
                    self._legacy[controller] = mounted

    @property
    def version(self) -> int:
        """2, 1, or 0 for none."""
        return 2 if self._unified else 1 if self._legacy else 0

    def create(self, name: str, pid: int) -> None:
        """Make the shard's groups and put the process in."""
        for folder in self._folders(name):
            try:
                if self._unified is not None:
                    _delegate(self._unified)
                folder.mkdir(parents=True, exist_ok=True)
                if self._unified is not None:
                    _delegate(folder.parent)
                (folder / "cgroup.procs").write_text(str(pid))
            except OSError:
                continue

    def limit_cpu(self, name: str, vcpus: float) -> bool:
        """Whether it is enforced. 0 lifts the limit."""
        period = _period_us(vcpus)
        quota = int(vcpus * period) if vcpus > 0 else -1
        if self._unified is not None:
            return _write(self._group(self._unified, name) / "cpu.max", f"{quota if quota > 0 else 'max'} {period}")
        if "cpu" not in self._legacy:
            return False
        group = self._group(self._legacy["cpu"], name)
        return _write(group / "cpu.cfs_period_us", str(period)) and _write(group / "cpu.cfs_quota_us", str(quota))

    def limit_memory(self, name: str, limit_bytes: int) -> bool:
        if self._unified is not None:
            return _write(self._group(self._unified, name) / "memory.max", str(limit_bytes))
        if "memory" not in self._legacy:
            return False
        return _write(self._group(self._legacy["memory"], name) / "memory.limit_in_bytes", str(limit_bytes))

    def remove(self, name: str) -> None:
        """After the process is gone; blocks for a moment while the kernel still counts it. Not there = success."""
        for folder in self._folders(name):
            for _ in range(_REMOVAL_TRIES):
                if _removed(folder):
                    break
                time.sleep(_REMOVAL_PAUSE)
            _removed(folder.parent)  # it goes with its last shard

    def _folders(self, name: str) -> list[Path]:
        roots = [self._unified] if self._unified is not None else list(self._legacy.values())
        return [self._group(root, name) for root in roots]

    @staticmethod
    def _group(root: Path, name: str) -> Path:
        return root / _PARENT / name


def _period_us(vcpus: float) -> int:
    """The usual one, unless the share of a period would be shorter than a slice should be."""
    if vcpus <= 0:
        return _PERIOD_US
    return min(max(_PERIOD_US, int(_SLICE_US / vcpus)), _LONGEST_PERIOD_US)


def group_name(work: Path, node: NodeId, shard: ShardId) -> str:
    """Two agents on one machine may serve nodes of the same id; their work folders tell them apart."""
    digest = hashlib.sha256(str(work.resolve()).encode()).hexdigest()
    return f"{node}.{shard}.{digest[:8]}"


def _delegate(folder: Path) -> None:
    missing = {"cpu", "memory"} - _words(folder / "cgroup.subtree_control")
    if missing:
        (folder / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in sorted(missing)))


def _removed(folder: Path) -> bool:
    """False while something is in it. Where this process may not make groups, it has none to remove."""
    try:
        folder.rmdir()
    except OSError as problem:
        if problem.errno in (errno.EBUSY, errno.ENOTEMPTY):
            return False
        if problem.errno not in (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS):
            raise
    return True


def _words(path: Path) -> set[str]:
    try:
        return set(path.read_text().split())
    except OSError:
        return set()


def _write(path: Path, value: str) -> bool:
    try:
        path.write_text(value)
    except OSError:
        return False
    return True
