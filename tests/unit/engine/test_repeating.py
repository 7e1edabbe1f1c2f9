import threading

from engine.repeating import Repeated


def test_what_fails_is_tried_again_and_stopping_is_quick() -> None:
    twice = threading.Event()
    calls: list[int] = []

    def once() -> None:
        calls.append(1)
        if len(calls) == 2:
            twice.set()
        raise RuntimeError("the database is locked")

    repeated = Repeated("the sweep", once, every_seconds=0.001)
    repeated.start()
    assert twice.wait(5)
    repeated.stop()
    assert not repeated._thread.is_alive()
