"""A paused guest's memory, read beside QEMU: is it the same on both sides of a move, and if not, which parts.

QEMU's software CPU (TCG) can lose track of a written page. The common cause is closed by sending.start (without it 7 of
40 moves on a host with seven busy processes per two cores arrived with old pages, and their guests panicked; with it
none of 40). What remains is a gap between the check that a page is marked dirty and its entry into the TLB as writable
without notice. So under TCG nothing runs on the destination before its memory has been compared, and what differs is
copied again; but where it has been sent in such a way that the gap cannot open (agent.sending).
KVM's dirty log has no such gap.

Guests have their memory in memfds (what they boot with, and what may be plugged in beyond it), which the agent finds
among QEMU's open files; chunks are counted through both. Both guests must be paused.
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
    sums: list[int] = []
    with _memory(pid, os.O_RDONLY) as parts:
        for part in parts:
            size = os.fstat(part).st_size
            found = [_ZEROS] * (size // CHUNK_BYTES)
            for index in _used_chunks(part, size):
                found[index] = zlib.crc32(os.pread(part, CHUNK_BYTES, index * CHUNK_BYTES))
            sums += found
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
        with _memory(self._pid, os.O_RDONLY) as parts:
            sizes = [os.fstat(part).st_size for part in parts]
            step = max(1, sum(sizes) // _SAMPLES // _PAGE_BYTES) * _PAGE_BYTES
            pages = [os.pread(part, _PAGE_BYTES, at) for part, size in zip(parts, sizes, strict=True)
                     for at in range(0, size, step)]  # fmt: skip
            return [zlib.crc32(page) for page in pages], sum(sizes)


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
    with _memory(pid, os.O_RDONLY) as parts:
        places = [_place(parts, index) for index in indexes]
        data = tuple(os.pread(part, CHUNK_BYTES, offset).hex() for part, offset in places)
    return MemoryPatch(indexes=tuple(indexes), data_hex=data)


def write_chunks(pid: int, patch: MemoryPatch) -> None:
    """Put chunks into a guest that has not run yet. Raises UsageError."""
    with _memory(pid, os.O_RDWR) as parts:
        for index, text in zip(patch.indexes, patch.data_hex, strict=True):
            part, offset = _place(parts, index)
            if len(text) != 2 * CHUNK_BYTES:
                raise UsageError("no such chunk of memory")
            os.pwrite(part, bytes.fromhex(text), offset)


@contextmanager
def _memory(pid: int, flags: int) -> Iterator[list[int]]:
    """In the order of their descriptors: QEMU makes them in that of its command line, which both ends share."""
    parts: list[int] = []
    try:
        for link in sorted(Path(f"/proc/{pid}/fd").glob("*"), key=lambda path: int(path.name)):
            try:
                if f"memfd:{BACKEND}" in str(link.readlink()):
                    parts.append(os.open(link, flags | os.O_CLOEXEC))
            except OSError:
                continue
        if not parts:
            raise NotFound(f"process {pid} has no guest memory that can be read")
        yield parts
    finally:
        for part in parts:
            os.close(part)


def _place(parts: Sequence[int], index: int) -> tuple[int, int]:
    """(descriptor, offset) of a chunk. Raises UsageError."""
    offset = index * CHUNK_BYTES
    for part in parts:
        size = os.fstat(part).st_size
        if 0 <= offset < size:
            return part, offset
        offset -= size
    raise UsageError("no such chunk of memory")


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
