import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from providers.sandbox.processes import MARKER
from providers.sandbox.teardown import (
    TAG_PATTERN,
    Leftover,
    clear_state,
    leftovers,
    new_tag,
    remove_dead_sockets,
    tear_down,
)


@pytest.mark.parametrize(
    ("name", "tag"),
    [
        ("sw12ab9f", "sw12ab9f"),
        ("sw12ab9fu", "sw12ab9f"),
        ("sw12ab9f-inet", "sw12ab9f"),
        ("sw12ab9f-client-demo", "sw12ab9f"),
        ("sw12ab9fcdef", None),
        ("sw0", None),
        ("eth0", None),
        ("swap-file", None),
        ("xsw12ab9f", None),
    ],
)
def test_only_names_of_a_sandbox_are_ours(name: str, tag: str | None) -> None:
    match = TAG_PATTERN.match(name)
    assert (match.group(1) if match else None) == tag


def test_new_tags_differ_and_fit_a_link_name() -> None:
    tags = {new_tag() for _ in range(50)}
    assert len(tags) > 45
    assert all(TAG_PATTERN.fullmatch(tag) and len(tag) + 1 <= 15 for tag in tags)


def test_only_what_a_sandbox_wrote_is_deleted(tmp_path: Path) -> None:
    (tmp_path / "nodes/n1/home").mkdir(parents=True)
    (tmp_path / "logs").mkdir()
    (tmp_path / "sandbox.json").write_text("{}")
    (tmp_path / "control.sqlite").write_text("mine")
    clear_state(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["control.sqlite"]
    (tmp_path / "control.sqlite").unlink()
    clear_state(tmp_path)
    clear_state(tmp_path)
    assert not tmp_path.exists()


def test_leftovers_name_a_process_until_it_is_torn_down(tmp_path: Path) -> None:
    tag = new_tag()
    command = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]
    with subprocess.Popen(command, env={MARKER: tag}, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (found,) = leftovers(tag)
        assert (found.kind, found.tag) == ("process", tag)
        assert str(process.pid) in found.name
        assert leftovers(tag, ignore=[process.pid]) == []
        assert leftovers("sw000000") == []
        assert found in leftovers()
        assert tear_down(tag, tmp_path) == []
        assert process.wait(timeout=5) == -15
    assert tear_down(tag, None) == []


def test_a_leftover_reads_as_a_line() -> None:
    assert str(Leftover("link", "sw12ab9fu", "sw12ab9f")) == "link sw12ab9fu (sw12ab9f)"
    assert str(Leftover("cgroup", "/sys/fs/cgroup/cpu/shardwright/n.s", "")).endswith("shardwright/n.s")


def test_the_command_line_lists_leftovers_and_counts_them_as_failure() -> None:
    environment = os.environ | {"PYTHONPATH": "."}
    listing = [sys.executable, "-m", "providers.sandbox", "leftovers", "--tag", "sw000000"]
    done = subprocess.run(listing, env=environment, capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_sockets_that_nobody_serves_any_more_are_removed(tmp_path: Path) -> None:
    served, dead, foreign = (tmp_path / name for name in ("swwg0a.sock", "swwg0b.sock", "wg0.sock"))
    with socket.socket(socket.AF_UNIX) as living:
        living.bind(str(served))
        living.listen()
        for path in (dead, foreign):
            with socket.socket(socket.AF_UNIX) as gone:
                gone.bind(str(path))
                gone.listen()
        remove_dead_sockets(tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["swwg0a.sock", "wg0.sock"]
    remove_dead_sockets(tmp_path / "nowhere")
