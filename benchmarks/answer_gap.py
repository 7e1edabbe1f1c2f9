"""How long a machine does not answer: echo requests every two milliseconds, without TCP's retransmission time-out.

    nsenter --net=… -- python -m benchmarks.answer_gap ADDRESS

A line on stdin begins a new span and prints, for the one before, the longest time between two answers, and how long ago
the last one came, in seconds.
"""

import os
import select
import socket
import struct
import sys
import time

from agent.probe_port import checksum

_EVERY = 0.002
_ECHO, _ANSWER = 8, 0


def echo(identifier: int, number: int) -> bytes:
    head = struct.pack("!BBHHH", _ECHO, 0, 0, identifier, number)
    return struct.pack("!BBHHH", _ECHO, 0, checksum(head), identifier, number)


def main(address: str) -> None:
    identifier, number = os.getpid() & 0xFFFF, 0
    due = last = time.monotonic()
    longest = 0.0
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as link:
        link.connect((address, 0))
        link.setblocking(False)
        while True:
            ready, _, _ = select.select([link, 0], [], [], max(0.0, due - time.monotonic()))
            now = time.monotonic()
            if link in ready:
                answer = link.recv(256)
                if answer[20] == _ANSWER and struct.unpack_from("!H", answer, 24)[0] == identifier:
                    longest, last = max(longest, now - last), now
            if 0 in ready:
                if not sys.stdin.readline():
                    return
                print(f"{max(longest, now - last):.4f} {now - last:.4f}", flush=True)
                longest = 0.0
            if now >= due:
                number, due = (number + 1) & 0xFFFF, now + _EVERY
                try:
                    link.send(echo(identifier, number))
                except OSError:  # no room in the queue: the next one
                    continue


if __name__ == "__main__":
    main(sys.argv[1])
