"""Memory compared and repaired between two processes that hold it as QEMU does: in a memfd of that name."""

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.memory import (
    BACKEND,
    CHUNK_BYTES,
    MOST_CHUNKS_A_PATCH,
    PageSample,
    differing,
    digest,
    read_chunks,
    write_chunks,
)
from agent.wire import MemoryDigest, MemoryPatch
from engine.errors import NotFound, UsageError

CHUNKS = 64
Hold = Callable[..., int]


@pytest.fixture
def hold() -> Iterator[Hold]:
    """Start a process with that memory ({offset: bytes} each, the rest never touched); gives its pid."""
    held: list[subprocess.Popen[bytes]] = []
    opened: list[int] = []

    def start(*parts: dict[int, bytes]) -> int:
        memory = [os.memfd_create(BACKEND) for _ in parts]
        opened.extend(memory)
        for part, contents in zip(memory, parts, strict=True):
            os.ftruncate(part, CHUNKS * CHUNK_BYTES)
            for offset, data in contents.items():
                os.pwrite(part, data, offset)
        sleeper = "import time; print('up', flush=True); time.sleep(60)"
        process = subprocess.Popen([sys.executable, "-c", sleeper], pass_fds=memory, stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()  # while it starts, it opens and closes files
        held.append(process)
        return process.pid

    yield start
    for process in held:
        process.kill()
        process.communicate()
    for memory in opened:
        os.close(memory)


def test_equal_memory_is_equal_however_it_is_stored(hold: Hold) -> None:
    data = random.Random(1).randbytes(3 * CHUNK_BYTES)
    written_zeros = {0: data, 20 * CHUNK_BYTES: bytes(CHUNK_BYTES)}
    assert digest(hold({0: data})) == digest(hold(written_zeros))


def blocks(pid: int) -> int:
    """How much of the memory is in use, in 512 bytes."""
    links = Path(f"/proc/{pid}/fd").iterdir()
    return next(link.stat().st_blocks for link in links if BACKEND in str(link.readlink()))


def test_looking_does_not_fill_holes(hold: Hold) -> None:
    pid = hold({5 * CHUNK_BYTES: b"x"})
    before = blocks(pid)
    digest(pid)
    assert blocks(pid) == before < CHUNKS * CHUNK_BYTES / 512 / 2


def test_what_differs_is_found_brought_and_then_equal(hold: Hold) -> None:
    dice = random.Random(2)
    contents = {index * CHUNK_BYTES: dice.randbytes(CHUNK_BYTES) for index in range(10)}
    lost = {3 * CHUNK_BYTES + 17: b"lost", 9 * CHUNK_BYTES: b"!", (CHUNKS - 1) * CHUNK_BYTES: b"last"}
    source, destination = hold(contents | lost), hold(contents)
    wanted = digest(source)
    places = differing(wanted, digest(destination))
    assert places == (3, 9, CHUNKS - 1)
    write_chunks(destination, read_chunks(source, places))
    assert digest(destination) == wanted


def test_what_was_plugged_in_is_compared_and_repaired_too(hold: Hold) -> None:
    source, destination = hold({0: b"boot"}, {5 * CHUNK_BYTES: b"more"}), hold({0: b"boot"}, {})
    places = differing(digest(source), digest(destination))
    assert places == (CHUNKS + 5,)
    write_chunks(destination, read_chunks(source, places))
    assert digest(destination) == digest(source)
    with pytest.raises(UsageError):
        read_chunks(source, (2 * CHUNKS,))


def test_one_flipped_bit_is_seen(hold: Hold) -> None:
    assert differing(digest(hold({7: b"\x00"})), digest(hold({7: b"\x01"}))) == (0,)


@pytest.mark.parametrize("indexes", [(-1,), (CHUNKS,), tuple(range(MOST_CHUNKS_A_PATCH + 1))])
def test_only_what_is_there_is_read(hold: Hold, indexes: tuple[int, ...]) -> None:
    with pytest.raises(UsageError):
        read_chunks(hold({}), indexes)


@pytest.mark.parametrize(("index", "data"), [(CHUNKS, "00" * CHUNK_BYTES), (-1, "00" * CHUNK_BYTES), (0, "00")])
def test_only_whole_chunks_are_written(hold: Hold, index: int, data: str) -> None:
    with pytest.raises(UsageError):
        write_chunks(hold({}), MemoryPatch(indexes=(index,), data_hex=(data,)))


def test_memories_of_different_size_cannot_be_compared() -> None:
    with pytest.raises(UsageError, match="different size"):
        differing(MemoryDigest(sums_hex="00000000"), MemoryDigest(sums_hex=""))


def test_samples_tell_how_much_has_changed(hold: Hold) -> None:
    pid = hold({0: random.Random(2).randbytes(CHUNKS * CHUNK_BYTES)})
    sample = PageSample(pid)
    assert sample.changed_bytes() == 0
    other = MemoryPatch(indexes=tuple(range(16)), data_hex=(random.Random(3).randbytes(CHUNK_BYTES).hex(),) * 16)
    write_chunks(pid, other)
    assert sample.changed_bytes() == 16 * CHUNK_BYTES


def test_a_process_without_guest_memory_is_not_a_guest() -> None:
    with pytest.raises(NotFound):
        digest(os.getpid())
