import signal
import socket
import threading
from pathlib import Path

import pytest

from agent import record_client
from agent.record_client import RecordEntry, RecordSummary, read_log, summarise


def entry(number: int, acked: float) -> RecordEntry:
    return RecordEntry(number=number, sent=acked - 0.001, acked=acked)


def test_the_longest_gap_lies_between_two_acknowledgements() -> None:
    summary = summarise([entry(1, 10.0), entry(2, 10.1), entry(3, 10.5), entry(4, 10.6)], first=1, sent=4)
    assert (summary.longest_gap_seconds, summary.gap_began) == (0.4, 10.1)
    assert (summary.acked, summary.sent, summary.connections) == (4, 4, 1)


def test_no_acknowledgement_has_no_gap() -> None:
    assert summarise([], first=1, sent=1, error="refused").longest_gap_seconds == 0


def serve(answers: list[bytes]) -> tuple[int, threading.Thread, list[bytes]]:
    listener = socket.create_server(("127.0.0.1", 0))
    got: list[bytes] = []

    def run() -> None:
        link, _ = listener.accept()
        with link, link.makefile("rb") as lines:
            for answer in answers:
                got.append(lines.readline())
                link.sendall(answer)
        listener.close()

    thread = threading.Thread(target=run)
    thread.start()
    return listener.getsockname()[1], thread, got


def written(port: int, log: Path, *, first: int, stop: threading.Event | None = None) -> RecordSummary:
    stop = stop or threading.Event()
    return record_client.run("127.0.0.1", port, log, stop, first=first, seconds=30, every=0, answer_seconds=5)


def test_every_record_is_sent_once_waited_for_and_logged(tmp_path: Path) -> None:
    port, thread, got = serve([b"5\n", b"6\n", b"error\n"])
    summary = written(port, tmp_path / "log", first=5)
    thread.join()
    assert got == [b"5\n", b"6\n", b"7\n"]
    assert [one.number for one in read_log(tmp_path / "log")] == [5, 6]
    assert (summary.sent, summary.acked) == (3, 2)
    assert "asked to store 7" in summary.error


def test_a_server_that_comes_late_is_waited_for_and_one_that_never_comes_is_not(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        record_client.connect("127.0.0.1", port, seconds=0)
    served: list[socket.socket] = []

    def come() -> None:
        served.append(socket.create_server(("127.0.0.1", port)))

    late = threading.Timer(0.1, come)
    late.start()
    record_client.connect("127.0.0.1", port).close()
    late.join()
    served[0].close()


def test_a_broken_connection_is_reported_and_not_opened_again(tmp_path: Path) -> None:
    port, thread, got = serve([b"1\n"])
    summary = written(port, tmp_path / "log", first=1)
    thread.join()
    assert got == [b"1\n"]
    assert summary.acked == 1
    assert summary.error


def test_being_told_to_end_is_no_error(tmp_path: Path) -> None:
    told = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    before = signal.getsignal(signal.SIGTERM)

    def answer_twice_and_tell() -> None:
        link, _ = listener.accept()
        with link, link.makefile("rb") as lines:
            link.sendall(lines.readline())
            second = lines.readline()
            told.set()
            link.sendall(second)

    thread = threading.Thread(target=answer_twice_and_tell)
    thread.start()
    summary = written(listener.getsockname()[1], tmp_path / "log", first=1, stop=told)
    thread.join()
    listener.close()
    assert (summary.sent, summary.acked, summary.error) == (2, 2, "")
    assert signal.getsignal(signal.SIGTERM) is before  # what signals do is for the whole process to say
