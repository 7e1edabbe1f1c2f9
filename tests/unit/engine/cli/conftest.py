from pathlib import Path

import pytest

from engine.app.configured import load, open_store
from tests.command import InProcess
from tests.small_configuration import GOOD
from tests.small_orders import fill


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> InProcess:
    monkeypatch.delenv("SHARDWRIGHT_CONFIG", raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    return InProcess(capfd)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file whose store has the nodes and components of tests.small_orders."""
    monkeypatch.setenv("PHRASE", "x")
    monkeypatch.setenv("KEY_ID", "x")
    path = tmp_path / "shardwright.toml"
    path.write_text(GOOD + f'\n[state]\ndirectory = "{tmp_path / "state"}"\n')
    with open_store(load(path)) as store:
        fill(store.shard_map)
    return path
