"""How the demo looks: a live view in a terminal, plain lines anywhere else."""

import time
from collections import deque
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from engine.cli.console import err, harmless, redraws
from engine.demo.stages import Stage

RECENT_LINES = 12


class Show(Protocol):
    """Told what goes on; decides how it looks."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def begin(self, stage: Stage) -> None: ...

    def line(self, text: str) -> None:
        """Something worth one line."""
        ...

    def result(self, what: RenderableType) -> None:
        """A table or a sentence that should stay on the screen."""
        ...

    def end(self, stage: Stage, seconds: float) -> None: ...


class PlainShow:
    """One line per event on the given console."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def begin(self, stage: Stage) -> None:
        self._console.print(f"== {stage.value}")

    def line(self, text: str) -> None:
        self._console.print(f"   {text}")

    def result(self, what: RenderableType) -> None:
        self._console.print(what)

    def end(self, stage: Stage, seconds: float) -> None:
        self._console.print(f"== {stage.value}: done in {seconds:.1f} s")


class LiveShow:
    """Stages with their times above the latest lines; results scroll by and stay."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=8, transient=False, get_renderable=self._render)
        self._done: dict[Stage, float] = {}
        self._current: Stage | None = None
        self._began = time.monotonic()
        self._lines: deque[str] = deque(maxlen=RECENT_LINES)
        self._spinner = Spinner("dots")

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lines.clear()
        self._live.__exit__(kind, error, trace)

    def begin(self, stage: Stage) -> None:
        self._current, self._began = stage, time.monotonic()
        self._lines.clear()

    def line(self, text: str) -> None:
        self._lines.append(harmless(text))

    def result(self, what: RenderableType) -> None:
        self._console.print(what)

    def end(self, stage: Stage, seconds: float) -> None:
        self._done[stage] = seconds

    def _render(self) -> RenderableType:
        grid = Table.grid(padding=(0, 2))
        for stage in Stage:
            if stage in self._done:
                grid.add_row(Text("✔", "green"), stage.value, f"{self._done[stage]:.1f} s")
            elif stage is self._current:
                grid.add_row(self._spinner, Text(stage.value, "bold"), f"{time.monotonic() - self._began:.1f} s")
            else:
                grid.add_row("·", Text(stage.value, "dim"), "")
        return Group(grid, *(Text(f"  {line}", "dim", no_wrap=True, overflow="ellipsis") for line in self._lines))


def open_show() -> Show:
    """Live on a terminal that may be redrawn, plain elsewhere. Talk goes to stderr."""
    console = err()
    return LiveShow(console) if redraws(console) else PlainShow(console)
