"""Something that is done again every few seconds for as long as a process lives."""

import threading
from collections.abc import Callable

import structlog

_STOP_SECONDS = 2.0
_log = structlog.get_logger()


class Repeated:
    """Does it now and every few seconds, in a thread of its own; what goes wrong is logged, and tried again."""

    def __init__(self, what: str, once: Callable[[], object], *, every_seconds: float) -> None:
        self._what, self._once, self._every = what, once, every_seconds
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=what, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Waits a little for what is under way; what hangs on a silent node ends with the process."""
        self._stopped.set()
        self._thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._once()
            except Exception as problem:
                _log.warning(f"{self._what} failed, and is tried again", error=str(problem))
            self._stopped.wait(self._every)
