"""Taking everything away again: stack resources, the sandbox with its nodes and guests, children, temporary files."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from engine.app.leaving import end_children
from engine.control_plane import ControlPlane
from providers.sandbox import supervisor
from providers.sandbox.teardown import leftovers


class Ending:
    """Knows what was begun; ``clean_up`` may be called at any moment and again."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.sandbox: Path | None = None
        """Set before the sandbox is started."""
        self.tag: str | None = None
        self.resources_left = 0

    def destroy_cells(self, plane: ControlPlane) -> None:
        """What a user would do at the end: every cell's stack is destroyed, side by side. Counts what survives."""
        cells = plane.steps.terms.cells
        driver = plane.steps.updates.driver
        with ThreadPoolExecutor(len(cells)) as pool:
            list(pool.map(driver.destroy, cells))
        self.resources_left = plane.instances_left()

    def clean_up(self) -> list[str]:
        """Everything else; what could not be taken away."""
        supervising = self._supervisor_pid()
        end_children(spared=() if supervising is None else (supervising,))
        left = [str(thing) for thing in supervisor.stop(self.sandbox)] if self.sandbox is not None else []
        if self.tag is not None:
            left += [str(thing) for thing in leftovers(self.tag) if str(thing) not in left]
        shutil.rmtree(self.work, ignore_errors=True)
        if self.work.exists():
            left.append(str(self.work))
        return left

    def _supervisor_pid(self) -> int | None:
        if self.sandbox is None:
            return None
        return supervisor.pid_of(self.sandbox)
