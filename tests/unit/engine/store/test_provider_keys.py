from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from engine.clock import ManualClock
from engine.store.database import Database, metadata
from engine.store.provider_keys import ProviderKeys, provider_keys

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path / 'store.db'}")
    metadata.create_all(database.engine, tables=[provider_keys])
    yield database
    database.dispose()


@pytest.fixture
def keys(database: Database) -> ProviderKeys:
    return ProviderKeys(database, ManualClock(NOW))


def test_the_keys_of_the_first_meeting_stay(keys: ProviderKeys, database: Database) -> None:
    assert keys.known("agora") == frozenset()
    assert keys.meet("agora", ["a", "b"]) == {"a", "b"}
    assert keys.meet("agora", ["c"]) == {"a", "b"}
    assert ProviderKeys(database, ManualClock(NOW)).known("agora") == {"a", "b"}, "kept between processes"
    assert keys.meet("harbor", ["c"]) == {"c"}, "each provider has its own"


def test_a_provider_that_shows_no_key_was_not_met(keys: ProviderKeys) -> None:
    assert keys.meet("agora", []) == frozenset()
    assert keys.meet("agora", ["a"]) == {"a"}


def test_an_accepted_key_takes_the_place_of_all_others(keys: ProviderKeys) -> None:
    keys.meet("agora", ["a", "b"])
    keys.meet("harbor", ["a"])
    keys.accept("agora", ["c"])
    assert (keys.known("agora"), keys.known("harbor")) == ({"c"}, {"a"})
    assert keys.meet("agora", ["a"]) == {"c"}


def test_of_two_that_meet_it_at_once_one_is_first(keys: ProviderKeys) -> None:
    with ThreadPoolExecutor(8) as pool:
        seen = set(pool.map(lambda key: keys.meet("agora", [key]), "abcdefgh"))
    assert len(seen) == 1


def test_a_list_without_end_is_not_kept(keys: ProviderKeys) -> None:
    assert len(keys.meet("agora", [f"k{number}" for number in range(5000)])) == 100
