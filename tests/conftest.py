"""What every test shares: a clock that stands still, a database of its own, and torch on one thread."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from engine.clock import ManualClock
from engine.store.all_tables import MODULES
from engine.store.database import Database, metadata
from tests.lanes import Lanes, longest_first

os.environ.setdefault("OMP_NUM_THREADS", "1")

# The same examples every time, so that a change is judged by what it changed; `make laws` looks for new ones. No
# deadlines: how long an example takes is the machine's business.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("search", derandomize=False, print_blob=True, deadline=None)
settings.load_profile(os.environ.get("SHARDWRIGHT_LAWS", "repeatable"))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Lanes:
    return Lanes(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests marked ``root`` are skipped, loudly, for an ordinary user. Workers get the long ones first."""
    if hasattr(config, "workerinput"):
        items[:] = longest_first(items)
    if os.geteuid() == 0:
        return
    skip = pytest.mark.skip(reason="needs root: namespaces, taps and QEMU; run the tests as root to have it")
    for item in items:
        if item.get_closest_marker("root"):
            item.add_marker(skip)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime(2026, 11, 23, 12, 0, tzinfo=UTC))


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """A fresh SQLite control store with every table."""
    assert MODULES, "importing them is what registers their tables"
    opened = Database(f"sqlite:///{tmp_path / 'control.sqlite'}")
    metadata.create_all(opened.engine)
    yield opened
    opened.dispose()
