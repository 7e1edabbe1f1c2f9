"""So many at once, first come, first served."""

import time
from threading import Event, Thread

import pytest

from engine.allocation.turns import Turns


class _Caller:
    """A thread that takes a turn, says so, and keeps it until it is told to go."""

    def __init__(self, turns: Turns, served: list[int], number: int) -> None:
        self.has_turn, self.may_go = Event(), Event()
        self._turns, self._served, self._number = turns, served, number
        self.thread = Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        with self._turns.turn():
            self._served.append(self._number)
            self.has_turn.set()
            assert self.may_go.wait(10)


def test_first_come_first_served() -> None:
    turns, served = Turns(1), list[int]()
    callers = _queued_behind_one(turns, served, 5)
    for caller in callers:
        assert caller.has_turn.wait(10)
        caller.may_go.set()
        caller.thread.join(10)
    assert served == [0, 1, 2, 3, 4]


def _queued_behind_one(turns: Turns, served: list[int], callers: int) -> list[_Caller]:
    first = _Caller(turns, served, 0)
    assert first.has_turn.wait(10)
    made = [first]
    for number in range(1, callers):
        made.append(_Caller(turns, served, number))
        _wait_for(turns, number)
    return made


def _wait_for(turns: Turns, waiting: int) -> None:
    deadline = time.monotonic() + 10
    while turns.waiting < waiting:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_so_many_at_once() -> None:
    turns, served = Turns(2), list[int]()
    first, second = _Caller(turns, served, 0), _Caller(turns, served, 1)
    assert first.has_turn.wait(10)
    assert second.has_turn.wait(10)
    third = _Caller(turns, served, 2)
    _wait_for(turns, 1)
    assert not third.has_turn.is_set()
    second.may_go.set()
    assert third.has_turn.wait(10)
    for caller in (first, third):
        caller.may_go.set()


def test_an_error_ends_the_turn() -> None:
    turns = Turns(1)
    with pytest.raises(ValueError, match="no"), turns.turn():
        raise ValueError("no")
    with turns.turn():
        pass
