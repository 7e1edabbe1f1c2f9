"""The benchmark's own judgement: it must see a double sale and a leak where there is one."""

from pathlib import Path

import pytest

from benchmarks.allocate_shards import Note, audit, measure
from engine.allocation.lease import LeaseState
from engine.store.holds import LeaseStore


def _note(key: str, state: str, fencing: int, units: int = 1) -> Note:
    return Note(key, units, fencing, LeaseState(state))


def test_what_is_given_back_may_be_sold_again() -> None:
    found = audit(
        [
            _note("a", "held", 1),
            _note("a", "confirmed", 1),
            _note("a", "released", 1),
            _note("b", "held", 2),
            _note("b", "expired", 2),
            _note("b", "held", 3),
        ],
        limit=1,
    )
    assert (found.grants, found.most_taken, found.double_sales) == (3, 1, 0)


@pytest.mark.parametrize(
    "notes",
    [
        [_note("a", "held", 1), _note("b", "held", 2)],
        [_note("a", "held", 1), _note("a", "expired", 1), _note("b", "held", 1)],
        [_note("a", "held", 1), _note("a", "expired", 1), _note("a", "confirmed", 1)],
        [_note("a", "held", 1), _note("a", "expired", 1), _note("b", "held", 2), _note("a", "confirmed", 1)],
    ],
    ids=["beyond the stock", "token twice", "confirmed after its end", "confirmed beside another"],
)
def test_a_double_sale_is_seen(notes: list[Note]) -> None:
    assert audit(notes, limit=1).double_sales == 1


def _measure(folder: Path, shards: int = 2) -> tuple[int, int, int]:
    row = measure("sqlite", f"sqlite:///{folder / 'control.sqlite'}", threads=8, calls=120, shards=shards, seed=1)
    assert row.granted + row.refused == row.calls == 120
    return row.granted, row.double_sales, row.leaks


def test_the_real_locking_sells_nothing_twice(tmp_path: Path) -> None:
    granted, double_sales, leaks = _measure(tmp_path)
    assert granted > 0
    assert (double_sales, leaks) == (0, 0)


def test_a_store_that_forgets_what_is_taken_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = LeaseStore._lock_stock
    monkeypatch.setattr(LeaseStore, "_lock_stock", lambda *given: (0, lock(*given)[1]))
    _, double_sales, _ = _measure(tmp_path)
    assert double_sales > 0


def test_a_store_that_does_not_give_back_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LeaseStore, "release", lambda *_: True)
    _, _, leaks = _measure(tmp_path, shards=120)  # one a call: two may both go to calls that confirm nothing
    assert leaks > 0
