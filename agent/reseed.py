"""A program for the guest, 24 instructions long: gives the kernel 64 bytes of fresh randomness, and makes it use them.

A guest that was restored from a template has the random generator of every other one. Writing to /dev/urandom mixes
something in, but the kernel would go on with its old key for up to a minute; only two ioctls, which no shell has, make
it take a new one now. x86-64, as the guests are.
"""

import struct

SEED_BYTES = 64
"""Read from standard input; with fewer it fails."""
_BASE, _HEADERS = 0x400000, 64 + 56
_CODE = bytes.fromhex(
    "4883ec58"  # sub rsp, 88: a struct rand_pool_info {int bits, int bytes, char[64]}
    "31c031ff488d742408ba400000000f05"  # read(0, rsp + 8, 64)
    "83f8407555"  # fail unless 64
    "c7042400020000c744240440000000"  # bits = 512, bytes = 64
    "488d3d4b000000be01000000b8020000000f05"  # open("/dev/urandom", O_WRONLY)
    "85c0782f89c5"  # fail if negative; ebp = descriptor
    "89efbe035208404889e2b8100000000f05"  # ioctl(ebp, RNDADDENTROPY, rsp)
    "85c07518"  # fail unless 0
    "89efbe0752000031d2b8100000000f05"  # ioctl(ebp, RNDRESEEDCRNG, 0)
    "85c07504"  # fail unless 0
    "31ffeb05"  # status 0
    "bf01000000"  # fail: status 1
    "b83c0000000f05"  # exit(status)
)
_PATH = b"/dev/urandom\0"


def program() -> bytes:
    """An ELF executable: header, one segment, code."""
    size = _HEADERS + len(_CODE) + len(_PATH)
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = struct.pack("<16sHHIQQQIHHHHHH", ident, 2, 62, 1, _BASE + _HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)
    return header + segment + _CODE + _PATH
