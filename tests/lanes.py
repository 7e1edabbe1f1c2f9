"""How the workers of ``make test`` (pytest-xdist) share the tests: by file, and what is measured on one of them.

A file is never split, since its fixtures are dear. Files that ask how long something takes, or how fast it is, run one
after another, so that none of them waits for another's guests; what runs beside them asks for nothing of the kind.
"""

from collections.abc import Sequence

import pytest
from xdist.scheduler import LoadScopeScheduling

MEASURED = (
    "tests/e2e/test_demo.py",
    "tests/e2e/test_demo_without_root.py",
    "tests/e2e/test_move_qemu.py",
    "tests/e2e/test_resize.py",
    "tests/e2e/test_shard_limits.py",
    "tests/faults/test_campaign.py",
    "tests/faults/test_move_faults.py",
    "tests/faults/test_sandbox_teardown.py",
)


class Lanes(LoadScopeScheduling):
    """Files are handed out in the order of the tests, those of MEASURED as one. A worker is given its next one already
    when two tests at most are left of its last.
    """

    def _split_scope(self, nodeid: str) -> str:
        return lane(nodeid)


def lane(nodeid: str) -> str:
    """What is run by one worker, in order."""
    file = nodeid.split("::")[0]
    return "measured" if file in MEASURED else file


def longest_first(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """What is measured, then the slow files, then the rest: a long file that is begun last is waited for alone."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}

    def rank(item: pytest.Item) -> int:
        return 0 if lane(item.nodeid) == "measured" else 1 if item.path in slow else 2

    return sorted(items, key=rank)
