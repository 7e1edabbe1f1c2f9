"""Taking everything away again: stack resources, the sandbox with its nodes and guests, children, temporary files."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from engine.control_plane import ControlPlane
from providers.sandbox import supervisor
from providers.sandbox.teardown import leftovers

_CHILD_SECONDS = 3


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
        self._end_children()
        left = [str(thing) for thing in supervisor.stop(self.sandbox)] if self.sandbox is not None else []
        if self.tag is not None:
            left += [str(thing) for thing in leftovers(self.tag) if str(thing) not in left]
        shutil.rmtree(self.work, ignore_errors=True)
        if self.work.exists():
            left.append(str(self.work))
        return left

    def _end_children(self) -> None:
        """Engines, plugins and clients of this process; the sandbox's supervisor ends itself."""
        spared = self._supervisor_pid()
        children = [
            child for child in psutil.Process().children(recursive=False) if spared is None or child.pid != spared
        ]
        family = [*children, *(inner for child in children for inner in _descendants(child))]
        for process in family:
            _signal(process, kill=False)
        _, alive = psutil.wait_procs(family, timeout=_CHILD_SECONDS)
        for process in alive:
            _signal(process, kill=True)
        psutil.wait_procs(alive, timeout=_CHILD_SECONDS)

    def _supervisor_pid(self) -> int | None:
        if self.sandbox is None:
            return None
        return supervisor.pid_of(self.sandbox)


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        found: list[psutil.Process] = process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return found


def _signal(process: psutil.Process, *, kill: bool) -> None:
    try:
        process.kill() if kill else process.terminate()
    except psutil.NoSuchProcess:
        return
