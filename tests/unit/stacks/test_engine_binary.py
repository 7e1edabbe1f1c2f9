import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from engine.errors import MissingPart
from stacks import engine_binary
from stacks.engine_binary import EngineBinary, cache_root, find_engine, install, require_engine
from stacks.launchers import missing_launchers, put_launchers


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a PATH nor a cache with an engine."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")


def engine(folder: Path, version: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "pulumi"
    program.write_text(f"#!/bin/sh\necho v{version}\n", encoding="utf-8")
    program.chmod(0o755)
    return program


def test_nothing_is_a_missing_part_with_a_remedy() -> None:
    assert find_engine() is None
    with pytest.raises(MissingPart) as seen:
        require_engine()
    assert seen.value.next_step == "make setup"


def test_one_on_path_is_taken_when_it_is_new_enough(tmp_path: Path) -> None:
    engine(tmp_path / "bin", "3.300.1")
    engine(cache_root() / "bin", "3.245.0")
    found = find_engine()
    assert found is not None
    assert (found.root, found.version, found.origin) == (str(tmp_path), "3.300.1", "PATH")
    engine(tmp_path / "bin", "3.99.9")
    older = find_engine()
    assert older is not None
    assert (older.version, older.origin) == ("3.245.0", "cache")


def test_one_that_does_not_run_is_none(tmp_path: Path) -> None:
    program = engine(cache_root() / "bin", "3.245.0")
    program.write_text("#!/bin/sh\nexit 3\n", encoding="utf-8")
    assert find_engine() is None


def test_install_puts_a_whole_engine_or_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(engine_binary, "_download", lambda _: "no route")
    monkeypatch.setattr(engine_binary, "_build", lambda _: "Go is not installed")
    with pytest.raises(MissingPart, match=r"no route.*Go is not installed"):
        install(said.append)
    assert _made() == []
    assert len(said) == 2

    def build(draft: Path) -> None:
        engine(draft / "bin", "3.245.0")

    monkeypatch.setattr(engine_binary, "_build", build)
    found = install(said.append)
    assert found.origin == "cache"
    assert missing_launchers(Path(found.root) / "bin") == ()
    assert _made() == [cache_root().name]
    before = len(said)
    assert install(said.append) == found
    assert len(said) == before, "the second time there is nothing to say"


def test_two_installs_at_once_build_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[EngineBinary] = []
    second = threading.Thread(target=lambda: found.append(install(lambda _: None)))
    built: list[Path] = []

    def build(draft: Path) -> None:
        built.append(draft)
        if len(built) == 1:
            second.start()
            second.join(0.2)  # time enough for it to build too, if nothing kept it from it
        engine(draft / "bin", "3.245.0")

    monkeypatch.setattr(engine_binary, "_download", lambda _: "no route")
    monkeypatch.setattr(engine_binary, "_build", build)
    first = install(lambda _: None)
    second.join(20)
    assert found == [first]
    assert len(built) == 1


def _made() -> list[str]:
    """What is in the cache beside the lock."""
    return [path.name for path in cache_root().parent.iterdir() if path.suffix != ".lock"]


def test_launchers_are_programs_that_name_their_python(tmp_path: Path) -> None:
    put_launchers(tmp_path)
    put_launchers(tmp_path)
    assert missing_launchers(tmp_path) == ()
    for program in tmp_path.iterdir():
        assert os.access(program, os.X_OK)
        told = subprocess.run(
            [str(program), "an-argument"],
            env={"SHARDWRIGHT_PYTHON": "/bin/echo", "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert told.stdout.split()[:2] == ["-u", "-m"]
        assert told.stdout.split()[-1] == "an-argument"


def test_the_command_line_says_what_is_missing(tmp_path: Path) -> None:
    checked = subprocess.run(
        [sys.executable, "-m", "stacks.engine_binary", "--check"], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 1
    assert "make setup" in checked.stderr
