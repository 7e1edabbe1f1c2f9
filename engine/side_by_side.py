"""The same work for several things at once, by threads that end with the process."""

import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def side_by_side(work: Callable[[Item], Result], items: Sequence[Item], *, at_once: int) -> list[Result]:
    """What it returns for each, in their order; where it raises, the first of that once all have ended.

    Unlike those of a pool of concurrent.futures its threads are daemons: a process that is told to end does not wait
    for whoever of them hangs on a silent node.
    """
    waiting: SimpleQueue[int] = SimpleQueue()
    results: dict[int, Result] = {}
    problems: dict[int, BaseException] = {}
    for number in range(len(items)):
        waiting.put(number)

    def run() -> None:
        while True:
            try:
                number = waiting.get_nowait()
            except Empty:
                return
            try:
                results[number] = work(items[number])
            except BaseException as problem:
                problems[number] = problem

    threads = [threading.Thread(target=run, daemon=True) for _ in range(min(at_once, len(items)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise problems[min(problems)]
    return [results[number] for number in range(len(items))]
