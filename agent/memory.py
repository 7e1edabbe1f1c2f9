"""A paused guest's memory, read beside QEMU: is it the same on both sides of a move, and if not, which parts.

QEMU's software CPU (TCG) can lose track of a written page. The common cause is closed by MoveAgent._start_sending
(without it 7 of 40 moves on a host with seven busy processes per two cores arrived with old pages, and their guests
panicked; with it none of 40). What remains is a gap between the check that a page is marked dirty and its entry into
the TLB as writable without notice. So under TCG nothing runs on the destination before its memory has been compared,
and what differs is copied again; but where it has been sent in such a way that the gap cannot open (agent.sending).
KVM's dirty log has no such gap.

Guests have their memory in a memfd, which the agent finds among QEMU's open files. Both guests must be paused.
"""

import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from agent.wire import MemoryDigest, MemoryPatch
from engine.errors import NotFound, UsageError

BACKEND = "memory-backend-memfd"
CHUNK_BYTES = 64 * 1024
MOST_CHUNKS_A_PATCH = 64
_ZEROS = zlib.crc32(bytes(CHUNK_BYTES))
_PAGE_BYTES, _SAMPLES = 4096, 512


def digest(pid: int) -> MemoryDigest:
    """CRC-32 of every chunk. About 0.5 s a GiB of memory in use; holes cost nothing."""
    with _memory(pid, os.O_RDONLY) as memory:
        size = os.fstat(memory).st_size
        sums = [_ZEROS] * (size // CHUNK_BYTES)
        for index in _used_chunks(memory, size):
            sums[index] = zlib.crc32(os.pread(memory, CHUNK_BYTES, index * CHUNK_BYTES))
    return MemoryDigest(sums_hex="".join(f"{one:08x}" for one in sums))


class PageSample:
    """Pages of a guest's memory, spread evenly, as they are now."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._sums, self._size = self._read()

    def changed_bytes(self) -> int:
        """How much of the whole memory is another one by now, to judge by the samples."""
        now, _ = self._read()
        changed = sum(mine != theirs for mine, theirs in zip(self._sums, now, strict=True))
        return changed * self._size // len(now)

    def _read(self) -> tuple[list[int], int]:
        with _memory(self._pid, os.O_RDONLY) as memory:
            size = os.fstat(memory).st_size
            step = max(1, size // _SAMPLES // _PAGE_BYTES) * _PAGE_BYTES
            return [zlib.crc32(os.pread(memory, _PAGE_BYTES, offset)) for offset in range(0, size, step)], size


def differing(mine: MemoryDigest, theirs: MemoryDigest) -> tuple[int, ...]:
    """Indexes of chunks that differ. Raises UsageError when the sizes do."""
    if len(mine.sums_hex) != len(theirs.sums_hex):
        raise UsageError("the two guests have memories of different size")
    pairs = ((mine.sums_hex[at : at + 8], theirs.sums_hex[at : at + 8]) for at in range(0, len(mine.sums_hex), 8))
    return tuple(index for index, (one, other) in enumerate(pairs) if one != other)


def read_chunks(pid: int, indexes: Sequence[int]) -> MemoryPatch:
    """The chunks of those indexes, MOST_CHUNKS_A_PATCH at most. Raises UsageError."""
    if len(indexes) > MOST_CHUNKS_A_PATCH:
        raise UsageError("too many chunks at once", why=f"{len(indexes)} of at most {MOST_CHUNKS_A_PATCH}")
    with _memory(pid, os.O_RDONLY) as memory:
        last = os.fstat(memory).st_size // CHUNK_BYTES
        if any(not 0 <= index < last for index in indexes):
            raise UsageError("no such chunk of memory")
        data = tuple(os.pread(memory, CHUNK_BYTES, index * CHUNK_BYTES).hex() for index in indexes)
    return MemoryPatch(indexes=tuple(indexes), data_hex=data)


def write_chunks(pid: int, patch: MemoryPatch) -> None:
    """Put chunks into a guest that has not run yet. Raises UsageError."""
    with _memory(pid, os.O_RDWR) as memory:
        last = os.fstat(memory).st_size // CHUNK_BYTES
        for index, text in zip(patch.indexes, patch.data_hex, strict=True):
            if not 0 <= index < last or len(text) != 2 * CHUNK_BYTES:
                raise UsageError("no such chunk of memory")
            os.pwrite(memory, bytes.fromhex(text), index * CHUNK_BYTES)


@contextmanager
def _memory(pid: int, flags: int) -> Iterator[int]:
    for link in Path(f"/proc/{pid}/fd").glob("*"):
        try:
            if f"memfd:{BACKEND}" in str(link.readlink()):
                handle = os.open(link, flags | os.O_CLOEXEC)
                break
        except OSError:
            continue
    else:
        raise NotFound(f"process {pid} has no guest memory that can be read")
    try:
        yield handle
    finally:
        os.close(handle)


def _used_chunks(memory: int, size: int) -> Iterator[int]:
    """Chunks that are not all hole; reading a hole would fill it."""
    following = offset = 0
    while offset < size:
        try:
            offset = os.lseek(memory, offset, os.SEEK_DATA)
        except OSError:  # nothing but hole to the end
            return
        end = os.lseek(memory, offset, os.SEEK_HOLE)
        for index in range(max(following, offset // CHUNK_BYTES), -(-end // CHUNK_BYTES)):
            yield index
            following = index + 1
        offset = end
