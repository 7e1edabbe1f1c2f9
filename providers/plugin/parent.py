"""Ending with whoever started this process, even when that one is killed and can tell nobody."""

import os
import threading
import time
from collections.abc import Callable

_LOOK_SECONDS = 0.2
_STARTED_BY = os.getppid()
"""Read as early as it can be: a parent that ends later is noticed, whenever the watch begins."""


def when_parent_ends(act: Callable[[], object]) -> None:
    """Call ``act`` once, from a thread of its own, as soon as this process has been orphaned."""

    def watch() -> None:
        while os.getppid() == _STARTED_BY:
            time.sleep(_LOOK_SECONDS)
        act()

    threading.Thread(target=watch, name="parent", daemon=True).start()
