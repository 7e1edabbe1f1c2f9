from pathlib import Path

import pytest

from engine.app.configured import load, open_store
from engine.model.ids import ShardId
from tests.command import InProcess
from tests.small_configuration import GOOD
from tests.unit.engine.composition.cases import API, shard


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A configuration in whose store a replica has its data on d1, which is lost."""
    file = tmp_path / "shardwright.toml"
    file.write_text(GOOD.replace("[pulumi]", f'[state]\ndirectory = "{tmp_path}/state"\n\n[pulumi]', 1))
    with open_store(load(file)) as store:
        store.attachments.assign(API, ShardId("d1"))
        store.attachments.grant(API, shard("c1", "n1"), 2)
    return file


def test_what_is_kept_where(command: InProcess, file: Path) -> None:
    (row,) = command("storage", "list", "--config", file, "--output", "json").data
    assert (row["storage"], row["shard"], row["epoch"]) == ("d1", "c1", 2)
    shown = command("storage", "list", "--config", file)
    assert shown.code == 0
    assert "lost" in shown.out


def test_lost_data_is_forgotten_on_request_only_and_once(command: InProcess, file: Path) -> None:
    assert command("storage", "forget", "shard://shop/web/api", "--config", file).code == 0
    assert command("storage", "list", "--config", file, "--output", "json").data == []
    command("storage", "forget", "shard://shop/web/api", "--config", file).refused(2, "has no storage", "storage list")
