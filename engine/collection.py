"""Python's search for cyclic garbage, held off while very many values are made.

Values refer to nothing that refers back to them, so the search finds nothing; yet it looks through all of a market
again and again while that grows, and costs more than making it. What nothing refers to any more is freed all the same.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

_guard = Lock()
_inside = 0
_was_on = False


@contextmanager
def collection_paused() -> Iterator[None]:
    """Also a decorator. May be nested, and entered by several threads: the last one out lets the search go on.

    For work that ends soon: cycles that others leave meanwhile stay in memory until then.
    """
    _enter()
    try:
        yield
    finally:
        _leave()


def _enter() -> None:
    global _inside, _was_on
    with _guard:
        if _inside == 0:
            _was_on = gc.isenabled()
            gc.disable()
        _inside += 1


def _leave() -> None:
    global _inside
    with _guard:
        _inside -= 1
        if _inside == 0 and _was_on:
            gc.enable()
