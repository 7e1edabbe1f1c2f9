import errno
from pathlib import Path

import pytest

from agent.limits import Cgroups


def mountinfo(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "mountinfo"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def unified(tmp_path: Path) -> Cgroups:
    root = tmp_path / "v2"
    root.mkdir()
    (root / "cgroup.controllers").write_text("cpuset cpu io memory")
    (root / "cgroup.subtree_control").write_text("")
    return Cgroups(mountinfo(tmp_path, f"30 20 0:26 / {root} rw,nosuid - cgroup2 cgroup2 rw"))


@pytest.fixture
def legacy(tmp_path: Path) -> Cgroups:
    for name in ("cpu", "memory"):
        (tmp_path / name).mkdir()
    return Cgroups(
        mountinfo(
            tmp_path,
            f"31 20 0:27 / {tmp_path}/cpu rw - cgroup cgroup rw,cpu,cpuacct",
            f"32 20 0:28 / {tmp_path}/memory rw - cgroup cgroup rw,memory",
            f"33 20 0:29 / {tmp_path}/unified rw - cgroup2 cgroup2 rw",
        )
    )


def test_version_two_writes_cpu_max_and_memory_max(tmp_path: Path, unified: Cgroups) -> None:
    unified.create("n.s", 42)
    assert unified.version == 2
    assert unified.limit_cpu("n.s", 0.5)
    assert unified.limit_memory("n.s", 1 << 28)
    group = tmp_path / "v2/shardwright/n.s"
    assert (group / "cpu.max").read_text() == "62500 125000"
    assert (group / "memory.max").read_text() == str(1 << 28)
    assert (group / "cgroup.procs").read_text() == "42"
    assert (tmp_path / "v2/cgroup.subtree_control").read_text() == "+cpu +memory"


def test_version_one_is_used_where_version_two_has_no_controllers(tmp_path: Path, legacy: Cgroups) -> None:
    legacy.create("n.s", 42)
    assert legacy.version == 1
    assert legacy.limit_cpu("n.s", 1.5)
    assert legacy.limit_memory("n.s", 1 << 28)
    assert (tmp_path / "cpu/shardwright/n.s/cpu.cfs_quota_us").read_text() == "150000"
    assert (tmp_path / "memory/shardwright/n.s/memory.limit_in_bytes").read_text() == str(1 << 28)


@pytest.mark.parametrize(
    ("vcpus", "slice_us", "period_us"),
    [(2.0, 200_000, 100_000), (0.5, 62_500, 125_000), (0.25, 62_500, 250_000), (0.1, 25_000, 250_000)],
)
def test_a_small_share_comes_in_slices_that_are_worth_their_start(
    tmp_path: Path, unified: Cgroups, legacy: Cgroups, vcpus: float, slice_us: int, period_us: int
) -> None:
    for groups in (unified, legacy):
        groups.create("n.s", 1)
        assert groups.limit_cpu("n.s", vcpus)
    assert (tmp_path / "v2/shardwright/n.s/cpu.max").read_text() == f"{slice_us} {period_us}"
    assert (tmp_path / "cpu/shardwright/n.s/cpu.cfs_quota_us").read_text() == str(slice_us)
    assert (tmp_path / "cpu/shardwright/n.s/cpu.cfs_period_us").read_text() == str(period_us)


def test_a_limit_can_be_lifted(tmp_path: Path, unified: Cgroups, legacy: Cgroups) -> None:
    for groups in (unified, legacy):
        groups.create("n.s", 1)
        assert groups.limit_cpu("n.s", 0)
    assert (tmp_path / "v2/shardwright/n.s/cpu.max").read_text() == "max 100000"
    assert (tmp_path / "cpu/shardwright/n.s/cpu.cfs_quota_us").read_text() == "-1"


def test_without_groups_nothing_is_enforced_and_nothing_fails(tmp_path: Path) -> None:
    none = Cgroups(mountinfo(tmp_path, "1 1 8:1 / / rw - ext4 /dev/vda rw"))
    none.create("n.s", 1)
    assert (none.version, none.limit_cpu("n.s", 1), none.limit_memory("n.s", 1)) == (0, False, False)
    none.remove("n.s")


def test_removing_what_is_not_there_is_success(unified: Cgroups) -> None:
    unified.remove("never")


def test_a_group_that_is_still_busy_is_removed_as_soon_as_it_is_not(
    tmp_path: Path, unified: Cgroups, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = tmp_path / "v2/shardwright/n.s"
    (group / "a process that is about to leave").mkdir(parents=True)
    waits: list[float] = []

    def leave(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            (group / "a process that is about to leave").rmdir()

    monkeypatch.setattr("agent.limits.time.sleep", leave)
    unified.remove("n.s")
    assert len(waits) == 3
    assert not group.parent.exists()


def test_who_may_not_make_groups_has_none_to_remove(unified: Cgroups, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(folder))

    monkeypatch.setattr(Path, "rmdir", refuse)
    unified.remove("n.s")
