import random
import socket
import time
from collections.abc import Iterator

import pytest

from providers.sandbox.distance import Distance


def open_port() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind(("127.0.0.1", 0))
    made.settimeout(5)
    return made


def at(endpoint: str) -> tuple[str, int]:
    host, _, port = endpoint.partition(":")
    return host, int(port)


@pytest.fixture
def far() -> Iterator[Distance]:
    made = Distance(open_port, random.Random(1), delay_seconds=0.1)
    yield made
    made.close()


def test_each_sees_the_other_where_it_was_told_and_later(far: Distance) -> None:
    with open_port() as a, open_port() as b:
        to_a, to_b = (at(far.add(*one.getsockname())) for one in (a, b))
        began = time.monotonic()
        a.sendto(b"there", to_b)
        datagram, source = b.recvfrom(100)
        assert (datagram, source) == (b"there", to_a)
        b.sendto(b"back", source)
        assert a.recvfrom(100) == (b"back", to_b)
        assert time.monotonic() - began >= 0.2


def test_a_share_is_lost_and_counted(far: Distance) -> None:
    far.delay_seconds, far.loss = 0.0, 0.25
    with open_port() as a, open_port() as b:
        far.add(*a.getsockname())
        to_b = at(far.add(*b.getsockname()))
        arrived = 0
        for number in range(200):
            a.sendto(number.to_bytes(2), to_b)
            while far.passed + far.lost <= number:
                time.sleep(0.0005)
            if far.passed > arrived:
                assert int.from_bytes(b.recv(10)) == number
                arrived += 1
        assert 30 < far.lost < 70


def test_strangers_do_not_get_through(far: Distance) -> None:
    far.delay_seconds = 0.0
    with open_port() as b, open_port() as stranger, open_port() as a:
        to_b = at(far.add(*b.getsockname()))
        far.add(*a.getsockname())
        stranger.sendto(b"hello", to_b)
        a.sendto(b"friend", to_b)
        assert b.recv(100) == b"friend"
