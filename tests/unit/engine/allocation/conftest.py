"""Resource locking on each kind of database."""

import pytest

from engine.allocation.locking import ResourceLocking
from engine.clock import ManualClock
from engine.store.database import Database


@pytest.fixture
def locking(store: Database, clock: ManualClock) -> ResourceLocking:
    return ResourceLocking(store, clock)
