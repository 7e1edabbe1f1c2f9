import subprocess
import sys
import threading

import pytest

from engine.side_by_side import side_by_side


def test_results_come_in_the_order_of_what_was_given() -> None:
    assert side_by_side(lambda number: number * number, range(20), at_once=3) == [n * n for n in range(20)]
    assert side_by_side(str, (), at_once=3) == []


def test_so_many_are_at_work_at_once_and_no_more() -> None:
    meet = threading.Barrier(4)
    names = side_by_side(lambda _: (meet.wait(30), threading.current_thread().name)[1], range(8), at_once=4)
    assert len(set(names)) == 4


def test_the_first_that_raises_is_told_once_all_have_ended() -> None:
    done: list[int] = []

    def work(number: int) -> None:
        done.append(number)
        if number in (2, 4):
            raise ValueError(number)

    with pytest.raises(ValueError, match="2"):
        side_by_side(work, range(6), at_once=2)
    assert sorted(done) == list(range(6))


def test_a_process_does_not_wait_for_one_that_hangs() -> None:
    code = (
        "import threading, time; from engine.side_by_side import side_by_side;"
        "begun = threading.Event();"
        "hang = lambda _: (begun.set(), time.sleep(600));"
        "threading.Thread(target=side_by_side, args=(hang, [1]), kwargs={'at_once': 1}, daemon=True).start();"
        "begun.wait()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
