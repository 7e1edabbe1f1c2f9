import struct

from agent.probe_port import checksum
from benchmarks.answer_gap import echo


def test_a_request_adds_up_to_nothing_with_its_checksum() -> None:
    assert checksum(echo(0x1234, 7)) == 0
    assert struct.unpack("!BBHHH", echo(0x1234, 7))[3:] == (0x1234, 7)


def test_the_checksum_is_that_of_the_standards_example() -> None:
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0x220D
