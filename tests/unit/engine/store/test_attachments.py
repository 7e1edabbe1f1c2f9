from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import UsageError
from engine.model.ids import NodeId, ShardId
from engine.store.attachments import Attachment, Attachments
from engine.store.database import Database, metadata
from tests.unit.engine.composition.cases import API, replica, shard

D1 = ShardId("d1")


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Attachments]:
    database = Database(f"sqlite:///{tmp_path / 'store.db'}")
    metadata.create_all(database.engine)
    yield Attachments(database)
    database.dispose()


def test_a_replica_keeps_its_storage(book: Attachments) -> None:
    first = book.assign(API, D1)
    assert (first, book.assign(API, D1)) == (Attachment(component=API, storage=D1), first)
    with pytest.raises(UsageError, match="keeps its data on d1"):
        book.assign(API, ShardId("d2"))
    book.assign(replica(1), ShardId("d2"))
    assert [one.storage for one in book.all()] == ["d1", "d2"]


def test_who_may_use_it_is_written_down_and_never_back(book: Attachments) -> None:
    book.assign(API, D1)
    book.grant(API, shard("c1", "n1"), 3)
    book.grant(API, shard("c0", "n0"), 2)
    (found,) = book.all()
    assert (found.shard, found.node, found.epoch, found.shard_epoch) == (ShardId("c1"), NodeId("n1"), 3, 1)
