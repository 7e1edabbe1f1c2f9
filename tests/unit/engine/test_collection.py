"""The search for garbage stands still inside, and goes on afterwards as it was."""

import gc
from collections.abc import Iterator
from threading import Event, Thread

import pytest

from engine.collection import collection_paused


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.enable()
    yield
    if not was_on:
        gc.disable()


def test_off_inside_and_on_again() -> None:
    with collection_paused():
        assert not gc.isenabled()
        with collection_paused():
            assert not gc.isenabled()
        assert not gc.isenabled(), "the outer pause is not over"
    assert gc.isenabled()


def test_on_again_after_an_error() -> None:
    with pytest.raises(ValueError, match="no"), collection_paused():
        raise ValueError("no")
    assert gc.isenabled()


def test_whoever_had_it_off_keeps_it_off() -> None:
    gc.disable()
    with collection_paused():
        pass
    assert not gc.isenabled()


def test_threads_share_one_pause() -> None:
    inside, may_go = Event(), Event()

    @collection_paused()
    def other() -> None:
        inside.set()
        may_go.wait(10)

    thread = Thread(target=other)
    with collection_paused():
        thread.start()
        assert inside.wait(10)
    assert not gc.isenabled(), "the other thread is still making values"
    may_go.set()
    thread.join(10)
    assert gc.isenabled()
