from pathlib import Path

import pytest

from agent.epochs import EpochStore
from engine.errors import StaleEpoch
from engine.model.ids import ShardId

SHARD = ShardId("s1")


def test_an_unknown_shard_is_at_epoch_zero(tmp_path: Path) -> None:
    assert EpochStore(tmp_path / "epochs").get(SHARD) == 0


def test_a_lower_epoch_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    store = EpochStore(tmp_path)
    store.accept(SHARD, 3)
    with pytest.raises(StaleEpoch, match="carries epoch 2"):
        store.accept(SHARD, 2)
    assert store.get(SHARD) == 3


def test_the_same_epoch_may_come_again(tmp_path: Path) -> None:
    store = EpochStore(tmp_path)
    store.accept(SHARD, 3)
    store.accept(SHARD, 3)
    assert store.get(SHARD) == 3


def test_epochs_survive_a_restart(tmp_path: Path) -> None:
    EpochStore(tmp_path).accept(SHARD, 5)
    with pytest.raises(StaleEpoch):
        EpochStore(tmp_path).accept(SHARD, 4)


def test_the_epoch_is_flushed_before_accept_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[str] = []
    real = __import__("os").fsync
    monkeypatch.setattr("agent.epochs.os.fsync", lambda handle: (flushed.append("fsync"), real(handle)))
    EpochStore(tmp_path).accept(SHARD, 1)
    assert flushed == ["fsync", "fsync"]  # the file, then the folder that names it
