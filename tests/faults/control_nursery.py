"""Control planes for tests to kill: one process loads every part once, and forks a ``shardwright`` at each order.

A control plane takes ten seconds and more of a busy machine to load, and these tests start many. What is forked is a
process of its own that runs the command's own entry point; nothing is opened before the fork.

stdin: one Order a line; stdout: ``loaded``, then a Report when a process has started and when it has ended.
"""

import gc
import os
import select
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path

from engine.model.value import Value

MARKER = "SHARDWRIGHT_TEST_CONTROL"
"""Environment variable by which everything that a control plane starts is known."""
DESTROY = "destroy-cells"
LOADED = "loaded"


class Order(Value):
    arguments: tuple[str, ...]
    """Of the command ``shardwright``; or DESTROY and a configuration file: destroy every cell."""
    die: str | None = None
    """See tests.faults.deaths."""
    marker: str
    """Value of MARKER for what it starts."""
    log: Path
    """Takes its stdout and stderr."""


class Report(Value):
    pid: int
    status: int | None = None
    """Exit code, or minus the signal; None: it has just started."""


def main() -> None:
    load()
    assert threading.active_count() == 1, "a thread would not survive the fork"
    print(LOADED, flush=True)
    pending, open_end = b"", True
    while open_end:
        if select.select([0], [], [], 0.02)[0]:
            read = os.read(0, 65536)
            open_end, pending = bool(read), pending + read
        *lines, pending = pending.split(b"\n")
        for line in lines:
            pid = os.fork()
            if pid == 0:
                os._exit(become(Order.model_validate_json(line)))
            say(Report(pid=pid))
        report_ended()


def load() -> None:
    for part in ("engine.app.control", "engine.app.embedded", "engine.cli.main", "engine.cli.market", "stacks.aws"):
        import_module(part)
    import torch

    torch.set_num_threads(1)
    gc.freeze()


def report_ended() -> None:
    try:
        pid, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return
    if pid:
        say(Report(pid=pid, status=os.waitstatus_to_exitcode(status)))


def say(report: Report) -> None:
    print(report.model_dump_json(), flush=True)


def become(order: Order) -> int:
    """The exit code. Leaving without taking the interpreter apart saves seconds for each."""
    from engine.cli.main import run
    from tests.faults.deaths import arm

    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    log = os.open(order.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nowhere = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nowhere, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.environ[MARKER] = order.marker
    if order.die is not None:
        arm(order.die)
    sys.argv = ["shardwright", *order.arguments]
    try:
        if order.arguments[0] == DESTROY:
            destroy(Path(order.arguments[1]))
        else:
            run()
    except SystemExit as done:
        return int(done.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def destroy(path: Path) -> None:
    from engine.app.control import control_plane
    from engine.config import load_configuration
    from engine.events import unseen

    with control_plane(load_configuration(path), unseen) as plane:
        cells = plane.steps.terms.cells
        with ThreadPoolExecutor(len(cells)) as pool:
            list(pool.map(plane.steps.updates.driver.destroy, cells))


if __name__ == "__main__":
    main()
