"""A client of a shard that keeps one connection through a move, and the proof that nothing it wrote was lost."""

import subprocess
import sys
from pathlib import Path

from agent.image import read_records
from agent.record_client import RecordSummary, read_log
from engine.clock import Clock, wait_until
from engine.errors import ShardwrightError
from engine.model.value import Value

_STOP_SECONDS = 20
_LONGEST_SECONDS = 300


class Proof(Value):
    """``missing``: acknowledged but not on the disk; ``doubled``: on the disk more than once."""

    records: int
    missing: tuple[int, ...]
    doubled: tuple[int, ...]

    @property
    def holds(self) -> bool:
        return self.records > 0 and not self.missing and not self.doubled


class Traffic:
    """The client process; it writes numbered records, each acknowledged once it is on the shard's disk."""

    def __init__(self, address: str, log: Path, namespace: str | None) -> None:
        command = [sys.executable, "-m", "agent.record_client", "--host", address, "--log", str(log)]
        command += ["--seconds", str(_LONGEST_SECONDS), "--every", "0.005"]
        if namespace is not None:
            command = ["nsenter", f"--net=/run/netns/{namespace}", *command]
        self._log = log
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def acknowledged(self) -> list[int]:
        return [entry.number for entry in read_log(self._log)] if self._log.exists() else []

    def wait_for(self, more: int, clock: Clock, *, timeout_seconds: float = 30) -> None:
        """Until so many further records are acknowledged. Raises ShardwrightError when they are not."""
        wanted = len(self.acknowledged()) + more
        wait_until(
            lambda: len(self.acknowledged()) >= wanted or self._process.poll() is not None,
            clock,
            timeout_seconds=timeout_seconds,
        )
        if len(self.acknowledged()) < wanted:
            raise ShardwrightError(
                f"the client has {len(self.acknowledged())} acknowledgements, {wanted} were expected",
                why=self._failure(),
            )

    def stop(self) -> RecordSummary:
        self._process.terminate()
        out, problem = self._process.communicate(timeout=_STOP_SECONDS)
        lines = out.strip().splitlines()
        if not lines:
            raise ShardwrightError("the client ended without a summary", why=problem.strip()[-300:])
        return RecordSummary.model_validate_json(lines[-1])

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(timeout=_STOP_SECONDS)

    def _failure(self) -> str:
        if self._process.poll() is None:
            return "it still waits"
        return (self._process.communicate()[1] or "it ended").strip()[-300:]


def prove(acknowledged: list[int], disk: Path) -> Proof:
    """Compare what was acknowledged with what the shard's disk holds now."""
    stored = read_records(disk)
    missing = tuple(sorted(set(acknowledged) - set(stored)))
    doubled = tuple(sorted({number for number in stored if stored.count(number) > 1}))[:20] if _repeats(stored) else ()
    return Proof(records=len(stored), missing=missing, doubled=doubled)


def _repeats(numbers: list[int]) -> bool:
    return len(set(numbers)) != len(numbers)
