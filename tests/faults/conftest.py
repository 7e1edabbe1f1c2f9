"""What the tests share that kill control planes: one nursery of them, and a deployment of its own for each test."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.deployment import Deployment
from tests.faults.nursery import Nursery


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    opened = Nursery()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first control plane leaves the network that it has trained."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture
def deployment(nursery: Nursery, trained: Path) -> Iterator[Deployment]:
    with tempfile.TemporaryDirectory(prefix="swf-") as folder:  # short: unix socket paths have an end
        opened = Deployment(Path(folder), nursery, trained)
        try:
            yield opened
        finally:
            opened.close()
