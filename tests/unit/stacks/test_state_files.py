import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from engine.clock import SystemClock, wait_until
from engine.errors import ConfigurationError, ShardwrightError
from stacks.state_files import PROJECT, LockHolder, StateFiles, mend_selection


def write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def state(folder: Path, latest: dict[str, object]) -> StateFiles:
    write(folder / ".pulumi" / "stacks" / PROJECT / "s.json", {"version": 3, "checkpoint": {"latest": latest}})
    return StateFiles(f"file://{folder}")


def lock(folder: Path, pid: int, host: str) -> None:
    write(folder / ".pulumi" / "locks" / "organization" / PROJECT / "s" / "1.json", {"pid": pid, "hostname": host})


@pytest.mark.parametrize("url", ["s3://bucket", "file://", "state"])
def test_other_backends_are_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="state_url"):
        StateFiles(url)


def test_a_folder_with_a_space(tmp_path: Path) -> None:
    assert StateFiles(f"file://{tmp_path}/my%20state").folder == tmp_path / "my state"


def test_the_engine_writes_no_attribute_files() -> None:
    assert StateFiles("file:///state").backend_url == "file:///state?metadata=skip"
    assert StateFiles("file:///state?no_tmp_dir=true").backend_url == "file:///state?no_tmp_dir=true&metadata=skip"


def test_no_stack_is_no_work(tmp_path: Path) -> None:
    files = StateFiles(f"file://{tmp_path}")
    assert not files.exists("s")
    assert not files.interrupted("s")
    assert files.outputs("s") == {}


def test_pending_operations_mean_interrupted(tmp_path: Path) -> None:
    assert not state(tmp_path, {"resources": []}).interrupted("s")
    files = state(tmp_path, {"pending_operations": [{"type": "creating", "resource": {"urn": "u"}}]})
    assert files.exists("s")
    assert files.interrupted("s")
    assert [operation["type"] for operation in files.pending("s")] == ["creating"]


def test_outputs_are_those_of_the_stack(tmp_path: Path) -> None:
    root = {"type": "pulumi:pulumi:Stack", "outputs": {"nodes": {"n": {"instance_id": "i"}}}}
    files = state(tmp_path, {"resources": [{"type": "x", "outputs": {"nodes": 1}}, root]})
    assert files.outputs("s") == root["outputs"]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Callable[..., int]]:
    """Starts what looks like an engine; its pid."""
    begun: list[subprocess.Popen[bytes]] = []
    program = tmp_path / "bin" / "pulumi"
    program.parent.mkdir()
    program.write_bytes(Path("/bin/sh").read_bytes())
    program.chmod(0o755)

    def start(*words: str) -> int:
        begun.append(subprocess.Popen([program, "-c", "read _", *words], stdin=subprocess.PIPE))
        process = psutil.Process(begun[-1].pid)
        begins = lambda: process.name() == "pulumi" and bool(process.cmdline())  # noqa: E731
        assert wait_until(begins, SystemClock(), timeout_seconds=10, every_seconds=0.01)
        return process.pid

    yield start
    for process in begun:
        process.kill()
        process.communicate()


def holder(pid: int, since: datetime | None = None, host: str = "") -> LockHolder:
    return LockHolder(stack="s", pid=pid, host=host or socket.gethostname(), since=since)


def test_a_lock_tells_who_holds_it_since_when(tmp_path: Path) -> None:
    files = state(tmp_path, {})
    lock(tmp_path, os.getpid(), socket.gethostname())
    assert files.interrupted("s")
    assert files.locks("s") == [holder(os.getpid())]
    told = tmp_path / ".pulumi" / "locks" / "organization" / PROJECT / "s" / "1.json"
    write(told, {"pid": 7, "hostname": "there", "timestamp": "2026-03-01T13:00:00.123456789+01:00"})
    (found,) = files.locks("s")
    assert (found.host, found.since) == ("there", datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC))


def test_the_last_sign_is_the_later_of_lock_and_state(tmp_path: Path) -> None:
    files = state(tmp_path, {})
    lock(tmp_path, 1, "elsewhere")
    for path, at in ((next(tmp_path.rglob("s.json")), 100), (next(tmp_path.rglob("1.json")), 200)):
        os.utime(path, (at, at))
    assert files.last_sign("s").timestamp() == 200
    os.utime(next(tmp_path.rglob("s.json")), (300, 300))
    assert files.last_sign("s").timestamp() == 300


def test_an_engine_that_works_on_the_stack_holds_its_lock(engine: Callable[..., int]) -> None:
    long_ago = datetime(2026, 3, 1, tzinfo=UTC)
    assert holder(engine("up", "--stack", "s"), long_ago).alive, "whatever the clock was set to since"
    assert holder(engine("up", "--stack", "organization/shardwright/s"), long_ago).alive
    assert holder(engine("up"), datetime.now(UTC)).alive, "started by hand, for the stack that is selected"
    assert holder(engine("up")).alive


def test_whoever_has_got_its_pid_since_does_not(engine: Callable[..., int]) -> None:
    began = datetime.now(UTC) - timedelta(minutes=1)
    assert not holder(engine("up", "--stack", "another"), began).alive
    assert not holder(os.getpid()).alive, "no engine"


def test_an_engine_that_has_ended_holds_nothing() -> None:
    ended = subprocess.Popen(["true"])
    assert os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT) is not None
    assert not holder(ended.pid).alive, "a zombie"
    ended.wait()
    assert not holder(ended.pid).alive


def test_of_one_on_another_machine_nobody_can_tell() -> None:
    found = holder(1, host="elsewhere")
    assert (found.here, found.alive) == (False, True)


def test_locks_are_broken_also_those_that_a_full_disk_cut_off(tmp_path: Path) -> None:
    files = StateFiles(f"file://{tmp_path}")
    lock(tmp_path, 1, "elsewhere")
    (tmp_path / ".pulumi" / "locks" / "organization" / PROJECT / "s" / "2.json").touch()
    assert len(files.locks("s")) == 1
    files.break_locks("s")
    assert files.locks("s") == []
    assert not files.interrupted("s")


def test_a_lock_that_was_cut_off_is_work_to_be_recovered(tmp_path: Path) -> None:
    files = state(tmp_path, {"resources": []})
    lock(tmp_path, 1, "elsewhere")
    (tmp_path / ".pulumi" / "locks" / "organization" / PROJECT / "s" / "1.json").write_text('{"pid": 1')
    assert files.locks("s") == []
    assert files.interrupted("s")


def test_a_state_that_was_cut_off_is_work_to_be_recovered(tmp_path: Path) -> None:
    files = state(tmp_path, {"resources": []})
    assert not files.damaged("s")
    cut = tmp_path / ".pulumi" / "stacks" / PROJECT / "s.json"
    cut.write_text(cut.read_text()[:20])
    assert files.damaged("s")
    assert files.interrupted("s")


def test_mending_puts_the_copy_from_before_the_last_write_back(tmp_path: Path) -> None:
    files = state(tmp_path, {"resources": [], "pending_operations": [{"type": "creating", "resource": {"urn": "u"}}]})
    cut = tmp_path / ".pulumi" / "stacks" / PROJECT / "s.json"
    cut.with_name("s.json.bak").write_bytes(cut.read_bytes())
    cut.write_text("")
    files.mend("s")
    assert not files.damaged("s")
    assert [operation["type"] for operation in files.pending("s")] == ["creating"]


def test_with_both_copies_cut_off_nothing_is_made_up(tmp_path: Path) -> None:
    files = state(tmp_path, {"resources": []})
    cut = tmp_path / ".pulumi" / "stacks" / PROJECT / "s.json"
    for path in (cut, cut.with_name("s.json.bak")):
        path.write_text('{"version": 3, "checkp')
    with pytest.raises(ShardwrightError, match="damaged") as caught:
        files.mend("s")
    assert "history" in caught.value.next_step
    assert cut.read_text() == '{"version": 3, "checkp'


def test_only_a_note_that_was_cut_off_is_taken_away(tmp_path: Path) -> None:
    """Named as the engine names it: by the project and the hash of its file's path."""
    name = f"{PROJECT}-290bef639dc8d430f606beec98695c9e911de0f7-workspace.json"
    note = tmp_path / "workspaces" / name
    write(note, {"stack": "s"})
    mend_selection(tmp_path, Path("/var/stacks/s"))
    assert note.exists()
    note.write_text('{"stack')
    mend_selection(tmp_path, Path("/var/stacks/other"))
    assert note.exists(), "another's"
    mend_selection(tmp_path, Path("/var/stacks/s"))
    assert not note.exists()
