"""Pieces of work on a Ray cluster: one of its own on loopback, which ends with the work, or a running one.

The only file that imports Ray, and only when a cluster is asked for.
"""

import logging
import os
import pickle
import secrets
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from itertools import accumulate, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from engine.errors import MissingPart, ScaleOutFailed, ShardwrightError, UsageError
from forecasting.scale.spread import Piece, Progress, Result, Shared, untold

RETRIES = 3
"""A piece whose worker dies is done again so many times."""
WARM_SECONDS = 120.0
PIECE_SECONDS = 7200.0
"""A play of the lab with an outside program may take an hour by itself."""
CONNECT_SECONDS = 5.0
START_TRIES = 3
"""Ray gives up a start that takes longer than half a minute, which one on a busy machine may."""
STOP_SECONDS = 10.0
AHEAD = 4
"""Pieces per worker that are under way or wait with their results, so that neither workers nor memory run out."""
LONGEST_FOLDER = 24
"""Ray's sockets lie below the temporary folder, and the path of a socket is at most 107 long."""
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # the only way to say: this machine alone, so listen on loopback only
    "RAY_AUTH_MODE": "token",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
JOINING = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_NUM_REDIS_GET_RETRIES": "1",  # of asking a head that takes the connection and does not answer; else 15 minutes
}
ROOT = Path(__file__).resolve().parents[2]
CODE = ("engine", "forecasting", "lab")
"""Whatever a piece may run: forecasts, replays, and the planner and values that both use."""
LIBRARIES = ("highspy", "numpy", "pandas", "scipy", "torch")
Packed = tuple[bytes, NDArray[np.uint8], list[int]]
"""A pickle, the bytes of its arrays one behind the other, and where each ends."""
_kept: dict[str, Any] = {}
"""On a worker: what the pieces of the work at hand share, so that it is unpacked once and not for each piece."""


class RaySpread:
    """Spreads pieces over the cluster that this process is connected to."""

    def __init__(self, progress: Progress = untold) -> None:
        self._ray = _loaded()
        self._progress = progress
        self._cpus = max(int(self._ray.cluster_resources().get("CPU", 1)), 1)

    def map(
        self, work: Callable[[Shared, Piece], Result], shared: Shared, pieces: Sequence[Piece], *, what: str
    ) -> Iterator[Result]:
        task = self._ray.remote(_packed).options(num_cpus=1, max_retries=RETRIES, name=what)
        common = self._ray.put(shared)
        waiting: deque[Any] = deque()
        rest = iter(pieces)
        try:
            for done in range(len(pieces)):
                while len(waiting) < AHEAD * self._cpus and done + len(waiting) < len(pieces):
                    waiting.append(task.remote(work, [common], next(rest)))
                yield _unpacked(self._result(waiting.popleft(), what, PIECE_SECONDS))
                self._progress(what, done + 1, len(pieces))
        finally:
            for piece in waiting:
                self._ray.cancel(piece, force=True)

    def warm_up(self) -> None:
        """See that the workers have what this process has: other versions would give other results. Raises
        ScaleOutFailed."""
        task = self._ray.remote(signature).options(num_cpus=1, max_retries=RETRIES, name="loading")
        answers, own = [task.remote() for _ in range(self._cpus)], signature()
        for answer in answers:
            if self._result(answer, "loading", WARM_SECONDS) != own:
                raise ScaleOutFailed(
                    "the cluster's workers run another version of this package or of a library that it computes with",
                    why=f"their results would differ; compared are {', '.join((*CODE, *LIBRARIES))}",
                    next_step="install the same versions on every node, or use --engine local",
                )

    def _result(self, piece: Any, what: str, seconds: float) -> Any:
        errors = self._ray.exceptions
        try:
            return self._ray.get(piece, timeout=seconds)
        except errors.RayTaskError as problem:
            if isinstance(problem.cause, ShardwrightError):
                raise problem.cause from None
            raise ScaleOutFailed(
                f"{what}: a piece failed on its worker",
                why=str(problem.cause),
                next_step="try --engine local, which shows where",
            ) from problem
        except errors.GetTimeoutError as problem:
            raise ScaleOutFailed(
                f"{what}: no result within {seconds:g} s",
                why="the workers are busy, or cannot be reached",
                next_step="look at the cluster with `ray status`, or use --engine local",
            ) from problem
        except errors.RayError as problem:
            raise ScaleOutFailed(
                f"{what}: a piece was lost with its worker {RETRIES + 1} times",
                why=str(problem).splitlines()[0],
                next_step="give fewer --workers if memory is short, or use --engine local",
            ) from problem


@contextmanager
def started(workers: int | None, progress: Progress = untold) -> Iterator[RaySpread]:
    """A cluster on this machine with so many workers (default: one per CPU that this process may use). It listens on
    loopback only, behind a token of its own, tells nobody of its use, and is gone when the block ends."""
    count = workers or len(os.sched_getaffinity(0))
    folder = gettempdir() if len(gettempdir()) <= LONGEST_FOLDER else "/tmp"  # noqa: S108
    with (
        TemporaryDirectory(prefix="sw-ray-", dir=folder, ignore_cleanup_errors=True) as session,
        _environment({**QUIET, "RAY_AUTH_TOKEN": _token()}),
    ):
        ray = _loaded()
        before = _descendants()
        try:
            _start(ray, count, session, before)
            _require_loopback(ray)
            spread = RaySpread(progress)
            spread.warm_up()
            yield spread
        finally:
            _stop(ray, before)


@contextmanager
def joined(address: str, progress: Progress = untold) -> Iterator[RaySpread]:
    """A running cluster, of which this machine is a node. ``address``: host:port of its head."""
    _require_reachable(address)
    with _environment(JOINING):
        ray = _loaded()
        try:
            with _told(f"the Ray cluster at {address} cannot be joined"):
                ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
            spread = RaySpread(progress)
            spread.warm_up()
            yield spread
        finally:
            ray.shutdown()


def signature() -> tuple[str, ...]:
    """What the results depend on beside the input: a digest of the source, and the libraries' versions."""
    digest = sha256()
    for folder in CODE:
        for path in sorted((ROOT / folder).rglob("*.py")):
            digest.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return digest.hexdigest(), *map(version, LIBRARIES)


def _packed(work: Callable[[Any, Any], object], common: list[Any], piece: object) -> Packed:
    """Runs on a worker. A result's arrays travel as one block beside the pickle, which is copied once on each side."""
    buffers: list[pickle.PickleBuffer] = []
    shared = _shared(common[0])
    with _one_thread():
        result = work(shared, piece)
    head = pickle.dumps(result, protocol=5, buffer_callback=buffers.append)
    parts = [np.frombuffer(buffer.raw(), dtype=np.uint8) for buffer in buffers]
    block = np.concatenate(parts) if parts else np.empty(0, dtype=np.uint8)
    return head, block, [0, *accumulate(len(part) for part in parts)]


@contextmanager
def _one_thread() -> Iterator[None]:
    """Of torch, if the work or what it shares has brought it: a worker that needs none starts seconds sooner."""
    if "torch" not in sys.modules:
        yield
        return
    from forecasting.rnn.threads import one_thread

    with one_thread():
        yield


def _unpacked(packed: Packed) -> Any:
    """The arrays become this process's own: the cluster's memory goes away with it."""
    head, block, edges = packed
    own = block.copy().data
    return pickle.loads(head, buffers=[own[low:high] for low, high in pairwise(edges)])  # noqa: S301


def _shared(common: Any) -> Any:
    name = common.hex()
    if name not in _kept:
        _kept.clear()
        _kept[name] = _loaded().get(common)
    return _kept[name]


def _loaded() -> Any:
    try:
        import ray
        import ray._private.worker
        import ray.exceptions
    except ImportError as problem:
        raise MissingPart(
            "--engine ray needs Ray, which is not installed",
            why="it is an extra of this package",
            next_step=".venv/bin/uv pip install --require-hashes -r requirements/ray.txt",
        ) from problem
    # What happens to workers Ray prints on stdout, whatever its options say; we tell what matters in errors of our own.
    ray._private.worker._worker_logs_enabled = False
    return ray


@cache
def _token() -> str:
    """One per process: Ray keeps the first that it reads."""
    return secrets.token_hex(32)


@contextmanager
def _environment(wanted: Mapping[str, str]) -> Iterator[None]:
    """Ray takes these from the environment only, at its import and from then on."""
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _start(ray: Any, workers: int, session: str, before: set[psutil.Process]) -> None:
    for left in reversed(range(START_TRIES)):
        try:
            with _told("the Ray cluster did not start"):
                ray.init(
                    "local",
                    num_cpus=workers,
                    num_gpus=0,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    _temp_dir=session,
                )
            return
        except ScaleOutFailed:
            if not left:
                raise
            _stop(ray, before)  # what a start that failed has started runs on


def _stop(ray: Any, before: set[psutil.Process]) -> None:
    mine = _descendants() - before
    ray.shutdown()
    _end(mine)


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Around one call of Ray, which raises a bare Exception where it has waited long enough."""
    try:
        yield
    except Exception as problem:
        raise ScaleOutFailed(
            what, why=(str(problem).splitlines() or [type(problem).__name__])[0], next_step="use --engine local"
        ) from problem


def _require_loopback(ray: Any) -> None:
    """Ray was imported before these settings: then it would listen on every address."""
    address = ray.util.get_node_ip_address()
    if address != "127.0.0.1":
        raise ScaleOutFailed(
            "the Ray cluster would listen beyond this machine",
            why=f"it took the address {address}; Ray was loaded before with other settings",
            next_step="run the command again in a process of its own",
        )


def _require_reachable(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdigit():
        raise UsageError(
            f"--ray-address {address!r} cannot be read", why="it must be HOST:PORT", next_step="such as 10.0.0.5:6379"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, OverflowError) as problem:
        raise ScaleOutFailed(
            f"there is no Ray cluster at {address}",
            why=str(problem),
            next_step="start one with `ray start --head --port PORT`, or leave --ray-address out",
        ) from problem


def _descendants() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


def _end(processes: set[psutil.Process]) -> None:
    """Ray ends what it started; whatever is left after a while is killed."""
    _, left = psutil.wait_procs(processes, timeout=STOP_SECONDS)
    for process in left:
        process.kill()
    psutil.wait_procs(left, timeout=STOP_SECONDS)
