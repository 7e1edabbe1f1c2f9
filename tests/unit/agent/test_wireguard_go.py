from pathlib import Path

import pytest

from agent import wireguard_go
from engine.errors import MissingPart


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No wireguard-go, no Go and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()
    return tmp_path


def test_it_is_found_on_path_first(bare: Path) -> None:
    program = bare / "bin" / "wireguard-go"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert wireguard_go.find_wireguard_go() == program


def test_then_in_the_cache_under_what_it_was_built_from(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert wireguard_go.find_wireguard_go() is None
    built = wireguard_go._cached()
    assert built is not None
    built.parent.mkdir(parents=True)
    built.write_text("#!/bin/sh\n")
    built.chmod(0o755)
    assert wireguard_go.find_wireguard_go() == built
    other = bare / "module"
    other.mkdir()
    (other / "go.sum").write_text("another")
    monkeypatch.setattr(wireguard_go, "_BUILD_FOLDER", other)
    assert wireguard_go.find_wireguard_go() is None


def test_where_there_is_no_source_it_cannot_be_built(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wireguard_go, "_BUILD_FOLDER", bare / "nowhere")
    with pytest.raises(MissingPart, match="cannot be built"):
        wireguard_go.install()
