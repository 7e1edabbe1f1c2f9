"""A client of the record server: numbered records over one TCP connection, each waited for, with the times noted.

    python -m agent.record_client --host 10.9.0.2 --log FILE [--port 7000] [--seconds 60] [--every 0.02] [--first 1]

Runs until the time is up or SIGTERM. ``FILE`` gets one JSON line a record when its acknowledgement arrives; the last
line of stdout is the summary. Times are CLOCK_MONOTONIC seconds, comparable between processes of one machine.
"""

import argparse
import signal
import socket
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from threading import Event
from types import FrameType

from pydantic import TypeAdapter

from agent.guest_scripts import RECORD_PORT
from engine.model.value import Value

_CONNECT_SECONDS, _TRY_SECONDS, _PAUSE_SECONDS = 30.0, 5.0, 0.2


class RecordEntry(Value):
    """One acknowledged record."""

    number: int
    sent: float
    acked: float


class RecordSummary(Value):
    """What the client saw; ``longest_gap_seconds`` lies between two acknowledgements."""

    first: int
    sent: int
    acked: int
    connections: int
    longest_gap_seconds: float
    gap_began: float
    seconds: float
    error: str = ""


_ENTRIES = TypeAdapter(RecordEntry)


def read_log(path: Path) -> list[RecordEntry]:
    """Every complete line of a log that may still be written."""
    return [_ENTRIES.validate_json(line) for line in path.read_bytes().split(b"\n")[:-1]]


def summarise(entries: Sequence[RecordEntry], *, first: int, sent: int, error: str = "") -> RecordSummary:
    """``sent`` counts records that were written to the connection."""
    acks = [entry.acked for entry in entries]
    gaps = [(later - earlier, earlier) for earlier, later in pairwise(acks)]
    gap, began = max(gaps, default=(0.0, 0.0))
    return RecordSummary(
        first=first,
        sent=sent,
        acked=len(entries),
        connections=1,
        longest_gap_seconds=round(gap, 4),
        gap_began=began,
        seconds=round(acks[-1] - acks[0], 3) if acks else 0.0,
        error=error,
    )


def run(
    host: str, port: int, log: Path, stop: Event, *, first: int, seconds: float, every: float, answer_seconds: float
) -> RecordSummary:
    """One connection from start to end or ``stop``; once there, it is never opened again, whatever happens."""
    entries: list[RecordEntry] = []
    number, error = first - 1, ""
    finish = time.monotonic() + seconds
    try:
        with (
            connect(host, port) as link,
            log.open("wb", buffering=0) as out,
        ):
            link.settimeout(answer_seconds)
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            answers = link.makefile("rb")
            while not stop.is_set() and time.monotonic() < finish:
                number += 1
                sent = time.monotonic()
                link.sendall(b"%d\n" % number)
                answer = answers.readline()
                if answer.strip() != b"%d" % number:
                    raise ConnectionError(f"asked to store {number}, was told {answer[:32]!r}")
                entries.append(RecordEntry(number=number, sent=sent, acked=time.monotonic()))
                out.write(entries[-1].model_dump_json().encode() + b"\n")
                if every:
                    time.sleep(every)
    except OSError as problem:
        error = f"{type(problem).__name__}: {problem}"
    return summarise(entries, first=first, sent=number - first + 1, error=error)


def connect(host: str, port: int, *, seconds: float = _CONNECT_SECONDS) -> socket.socket:
    """Tried again for a while: where a shard is may only just be getting around. Raises OSError."""
    end = time.monotonic() + seconds
    while True:
        try:
            return socket.create_connection((host, port), timeout=_TRY_SECONDS)
        except OSError:
            if time.monotonic() + _PAUSE_SECONDS > end:
                raise
            time.sleep(_PAUSE_SECONDS)


def _told_to_end() -> Event:
    """Set by SIGTERM or Ctrl-C."""
    told = Event()

    def end(_signal: int, _frame: FrameType | None) -> None:
        told.set()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    return told


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="agent.record_client", description="Write numbered records to a shard.")
    parser.add_argument("--host", required=True, help="the shard's overlay address")
    parser.add_argument("--port", type=int, default=RECORD_PORT)
    parser.add_argument("--log", type=Path, required=True, help="one JSON line a record")
    parser.add_argument("--first", type=int, default=1, help="number of the first record")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--every", type=float, default=0.01, help="pause between records, seconds")
    parser.add_argument("--answer-seconds", type=float, default=60.0, help="give up when an answer takes longer")
    options = parser.parse_args(arguments)
    summary = run(
        options.host, options.port, options.log, _told_to_end(),
        first=options.first, seconds=options.seconds, every=options.every, answer_seconds=options.answer_seconds,
    )  # fmt: skip
    print(summary.model_dump_json(), flush=True)
    return 1 if summary.error else 0


if __name__ == "__main__":
    sys.exit(main())
