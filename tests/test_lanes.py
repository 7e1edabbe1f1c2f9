"""What the workers of ``make test`` may rely on."""

from pathlib import Path

import pytest

from tests.lanes import MEASURED, lane, longest_first

ROOT = Path(__file__).resolve().parents[1]


class Item:
    """Of a file, with its marks."""

    def __init__(self, file: str, *marks: str) -> None:
        self.path, self.nodeid, self._marks = ROOT / file, f"{file}::test_{len(marks)}", marks

    def get_closest_marker(self, name: str) -> str | None:
        return name if name in self._marks else None


@pytest.mark.parametrize("file", MEASURED)
def test_what_is_measured_is_there_and_is_one_lane(file: str) -> None:
    assert (ROOT / file).is_file()
    assert lane(f"{file}::test_it[a::b]") == "measured"


def test_a_file_is_not_split() -> None:
    assert lane("tests/unit/test_it.py::test_it[tests/e2e::x]") == lane("tests/unit/test_it.py::TestIt::test_other")


def test_the_longest_are_begun_first_and_each_file_stays_together_in_its_order() -> None:
    quick, slow, measured = Item("tests/a.py"), Item("tests/b.py", "slow"), Item(MEASURED[0], "slow", "root")
    beside, last = Item("tests/b.py"), Item("tests/c.py")
    ordered = longest_first([quick, beside, slow, measured, last])  # type: ignore[list-item]
    assert ordered == [measured, beside, slow, quick, last]
