"""One sandbox and one nursery of control planes for the tests that kill them; a deployment of its own for each test."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.estate import Deployment, Estate


@pytest.fixture(scope="module")
def estate() -> Iterator[Estate]:
    with tempfile.TemporaryDirectory(prefix="swf-") as folder:  # short: unix socket paths have an end
        opened = Estate(Path(folder))
        try:
            yield opened
        finally:
            opened.close()


@pytest.fixture
def deployment(estate: Estate) -> Iterator[Deployment]:
    opened = estate.deploy()
    yield opened
    opened.close()
