"""The sandbox's life: one supervising process that takes everything away when it, or whoever started it, goes.

Three things see to that. The supervisor tears down on SIGTERM and SIGINT, and as soon as its parent is gone (a pidfd
tells). A reaper process waits at the end of a pipe that only the supervisor holds, and tears down should the supervisor
itself be killed. ``down`` does the same from outside; it needs only the tag in sandbox.json, which is written first.
"""

import contextlib
import fcntl
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from types import FrameType
from typing import IO

from engine.clock import Clock
from engine.errors import ShardwrightError, StateInUse, UsageError
from providers.sandbox.assembly import Sandbox, SandboxOptions
from providers.sandbox.info import DEFAULT_PROVIDERS, FILE_NAME, SandboxInfo
from providers.sandbox.processes import MARKER, environment_value
from providers.sandbox.servers import ServerFailed
from providers.sandbox.teardown import Leftover, new_tag, tear_down

Progress = Callable[[str], None]
READY = "ready"
_STOP_SECONDS = 6.0
_LAST_LINES = 8
_started: dict[Path, subprocess.Popen[bytes]] = {}
"""Supervisors that this process started, so that ``stop`` can wait for them."""


# --- inside the supervising process -----------------------------------------------------------------------------------


def supervise(options: SandboxOptions, tag: str, clock: Clock, *, parent_pid: int | None) -> int:
    """Run the sandbox until told to stop; the exit code. ``tag`` is already in this process's environment."""
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    options.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _sole_owner(options.state_dir), (options.state_dir / "supervisor.log").open("a", encoding="utf-8") as log:
        _clear_predecessor(options.state_dir)
        started_at = clock.now()
        SandboxInfo(tag=tag, state_dir=str(options.state_dir), started_at=started_at, supervisor_pid=os.getpid()).save(
            options.state_dir
        )
        with _reaper(tag, options.state_dir) as reaper_pid:
            if parent_pid is not None:
                _stop_with(parent_pid, stop)
            say = _sayer(log, clock)
            sandbox = Sandbox(options, tag, clock, stop, say)
            try:
                sandbox.open(started_at).save(options.state_dir)
                print(READY, flush=True)
                stop.wait()
                return_code = 0
            except ShardwrightError as error:
                say(str(error))
                return_code = 0 if stop.is_set() else int(error.exit_code)
            finally:
                stop.set()
                sandbox.end_servers()
                left = tear_down(tag, options.state_dir, spare=[reaper_pid])
                for leftover in left:
                    say(f"left over: {leftover}")
    return return_code or (1 if left else 0)


@contextmanager
def _sole_owner(state_dir: Path) -> Iterator[None]:
    """Raises StateInUse while another supervisor has this folder. The kernel lets the lock go with the process."""
    handle = os.open(state_dir, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _in_use(state_dir) from None
        yield
    finally:
        os.close(handle)


def _clear_predecessor(state_dir: Path) -> None:
    """A sandbox that was killed together with its reaper left its tag here: take it away first."""
    if (state_dir / FILE_NAME).exists():
        predecessor = SandboxInfo.load(state_dir)
        tear_down(predecessor.tag, state_dir)
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)


@contextmanager
def _reaper(tag: str, state_dir: Path) -> Iterator[int]:
    command = [sys.executable, "-m", "providers.sandbox", "reap", "--tag", tag, "--state", str(state_dir)]
    nowhere = subprocess.DEVNULL
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=nowhere, stderr=nowhere, start_new_session=True)
    try:
        yield process.pid
    finally:
        # Only now: had we died before this line, the pipe would have closed without the word.
        with contextlib.suppress(OSError):
            process.communicate(b"done", timeout=2)


def _stop_with(parent_pid: int, stop: threading.Event) -> None:
    """Set ``stop`` the moment the parent is gone, even by kill -9."""
    try:
        handle = os.pidfd_open(parent_pid)
    except ProcessLookupError:
        stop.set()
        return

    def watch() -> None:
        select.select([handle], [], [])
        stop.set()

    threading.Thread(target=watch, name="parent", daemon=True).start()


def _sayer(log: IO[str], clock: Clock) -> Progress:
    lock = threading.Lock()

    def say(line: str) -> None:
        with lock, contextlib.suppress(OSError, ValueError):  # whoever read our stderr may be gone
            log.write(f"{clock.now().isoformat(timespec='milliseconds')} {line}\n")
            log.flush()
            print(line, file=sys.stderr, flush=True)

    return say


# --- for the one who starts it ----------------------------------------------------------------------------------------


def start(
    state_dir: Path,
    *,
    seed: int = 0,
    meter_speed: Decimal = Decimal(1),
    providers: Sequence[str] = DEFAULT_PROVIDERS,
    namespaces: bool = True,
    reclaims: bool = False,
    control_ports: Sequence[int] = (),
    outlive: bool = False,
    progress: Progress | None = None,
    timeout_seconds: float = 90.0,
) -> SandboxInfo:
    """Start a supervisor and wait until the sandbox is ready. It ends with this process unless it is to ``outlive`` it.

    ``progress`` gets every line it says until then. Raises StateInUse, ServerFailed, UsageError.
    """
    if _running_in(state_dir) is not None:
        raise _in_use(state_dir)
    tag = new_tag()
    command = [sys.executable, "-m", "providers.sandbox", "up", "--state", str(state_dir), "--seed", str(seed)]
    command += ["--meter-speed", str(meter_speed), "--providers", ",".join(providers)]
    command += [] if outlive else ["--parent-pid", str(os.getpid())]
    command += [] if namespaces else ["--no-namespaces"]
    command += ["--reclaims"] if reclaims else []
    command += [part for port in control_ports for part in ("--control-port", str(port))]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {MARKER: tag},
        start_new_session=True,  # Ctrl-C is for the one in front, who then calls stop()
    )
    _started[state_dir.resolve()] = process
    try:
        _wait_ready(process, progress or (lambda _: None), timeout_seconds)
    except BaseException:
        _give_up(tag, state_dir)
        raise
    return SandboxInfo.load(state_dir)


def _give_up(tag: str, state_dir: Path) -> None:
    """Take away what we started, and nothing of another sandbox that may own the folder."""
    process = _started.pop(state_dir.resolve(), None)
    if process is not None:
        _end(process.pid, process)
    try:
        owner = SandboxInfo.load(state_dir).tag
    except UsageError:
        owner = None
    tear_down(tag, state_dir if owner == tag else None)


def stop(state_dir: Path) -> list[Leftover]:
    """Take the sandbox away; what is left of it (normally nothing). None there = success. Within 5 s.

    Raises StateInUse where it is another user's.
    """
    process = _started.pop(state_dir.resolve(), None)
    try:
        info = SandboxInfo.load(state_dir)
    except UsageError:
        if process is not None:
            _end(process.pid, process)
        return []
    if _running_in(state_dir) is not None:
        _end(info.supervisor_pid, process)
    elif _has_owner(state_dir):
        raise StateInUse(
            f"the sandbox in {state_dir} is not yours to end",
            why=f"this user may not look into its process {info.supervisor_pid}",
            next_step=f"shardwright sandbox down --state {state_dir}, as the user who started it",
        )
    return tear_down(info.tag, state_dir)


def _running_in(state_dir: Path) -> SandboxInfo | None:
    """The sandbox whose supervisor lives and has the folder."""
    try:
        info = SandboxInfo.load(state_dir)
    except UsageError:
        return None
    return info if environment_value(info.supervisor_pid, MARKER) == info.tag else None


def _has_owner(state_dir: Path) -> bool:
    """Whether a living supervisor has the folder."""
    try:
        with _sole_owner(state_dir):
            return False
    except StateInUse:
        return True


def _in_use(state_dir: Path) -> StateInUse:
    return StateInUse(
        f"a sandbox already runs in {state_dir}", next_step=f"shardwright sandbox down --state {state_dir}"
    )


def pid_of(state_dir: Path) -> int | None:
    """The supervisor that this process started in the folder; None when it started none there."""
    process = _started.get(state_dir.resolve())
    return None if process is None else process.pid


def _end(pid: int, process: subprocess.Popen[bytes] | None) -> None:
    """SIGTERM and wait; SIGKILL when it takes too long."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            break
        try:
            signal.pidfd_send_signal(handle, number)
            if select.select([handle], [], [], _STOP_SECONDS)[0]:
                break
        except ProcessLookupError:
            break
        finally:
            os.close(handle)
    if process is not None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=1)


def _wait_ready(process: subprocess.Popen[bytes], progress: Progress, timeout_seconds: float) -> None:
    """What it says before it is ready is told on return: it was written before, so it is read before."""
    assert process.stdout is not None
    assert process.stderr is not None
    out, err = _Lines(process.stdout), _Lines(process.stderr)
    said: list[str] = []

    def tell() -> None:
        for line in err.read():
            said.append(line)
            progress(line)

    why = f"not ready after {timeout_seconds:.0f} s"
    deadline = time.monotonic() + timeout_seconds
    try:
        while (left := deadline - time.monotonic()) > 0:
            select.select([end.stream for end in (out, err) if not end.ended], [], [], left)
            ready = READY in out.read()
            tell()
            if ready:
                return
            if err.ended:
                why = f"exit {process.wait()}"
                break
    finally:
        for end in (out, err):
            end.drain()
    raise ServerFailed("the sandbox did not start", why=" | ".join([why, *said[-_LAST_LINES:]]))


class _Lines:
    """The lines of a pipe as far as they have come, read without waiting."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream, self.ended = stream, False
        self._rest = b""
        os.set_blocking(stream.fileno(), False)

    def read(self) -> list[str]:
        """Whole ones, without those that are empty."""
        while not self.ended:
            try:
                chunk = os.read(self.stream.fileno(), 65_536)
            except BlockingIOError:
                break
            self.ended = not chunk
            self._rest += chunk
        *lines, self._rest = self._rest.split(b"\n")
        return [line.decode(errors="replace").rstrip() for line in lines if line.strip()]

    def drain(self) -> None:
        """From now on, so that the writer never blocks on a full pipe."""
        os.set_blocking(self.stream.fileno(), True)

        def swallow() -> None:
            with self.stream:
                while os.read(self.stream.fileno(), 65_536):
                    pass

        threading.Thread(target=swallow, daemon=True).start()
