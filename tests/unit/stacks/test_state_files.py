import json
import os
import socket
import subprocess
from pathlib import Path

import pytest

from engine.errors import ConfigurationError, ShardwrightError
from stacks.state_files import PROJECT, LockHolder, StateFiles


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


def test_a_lock_tells_whether_its_holder_lives(tmp_path: Path) -> None:
    files = state(tmp_path, {})
    lock(tmp_path, os.getpid(), socket.gethostname())
    assert files.interrupted("s")
    assert [holder.alive for holder in files.locks("s")] == [True]
    ended = subprocess.Popen(["true"])
    pid = ended.pid
    assert os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT) is not None
    assert not LockHolder(pid=pid, host=socket.gethostname()).alive, "a zombie holds nothing"
    ended.wait()
    assert not LockHolder(pid=pid, host=socket.gethostname()).alive
    assert LockHolder(pid=pid, host="elsewhere").alive


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
