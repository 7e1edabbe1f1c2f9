"""Parameters for the key exchange of QEMU's TLS servers: the group ffdhe2048 of RFC 7919, as QEMU reads it.

Without this file QEMU 7.2 looks for a prime of its own whenever it is to serve: 0.1 to 0.8 s on an idle core, seconds
on a busy one, and answers nothing meanwhile. TLS 1.3 agrees on a curve and uses neither.
"""

import base64
import textwrap

FILE = "dh-params.pem"
"""QEMU looks for it by that name beside the certificates."""
_PRIME = int(
    "FFFFFFFFFFFFFFFFADF85458A2BB4A9AAFDC5620273D3CF1D8B9C583CE2D3695A9E13641146433FBCC939DCE249B3EF97D2FE363630C75D8"
    "F681B202AEC4617AD3DF1ED5D5FD65612433F51F5F066ED0856365553DED1AF3B557135E7F57C935984F0C70E0E68B77E2A689DAF3EFE872"
    "1DF158A136ADE73530ACCA4F483A797ABC0AB182B324FB61D108A94BB2C8E3FBB96ADAB760D7F4681D4F42A3DE394DF4AE56EDE76372BB19"
    "0B07A7C8EE0A6D709E02FCE1CDF7E2ECC03404CD28342F619172FE9CE98583FF8E4F1232EEF28183C3FE3B1B4C6FAD733BB5FCBC2EC22005"
    "C58EF1837D1683B2C6F34A26C1B2EFFA886B423861285C97FFFFFFFFFFFFFFFF",
    16,
)
_GENERATOR = 2
_INTEGER, _SEQUENCE = 0x02, 0x30


def parameters() -> bytes:
    """PKCS #3 in PEM. The library for certificates writes X9.42 for a group that it knows, which GnuTLS refuses."""
    numbers = b"".join(_encoded(_INTEGER, _bytes(number)) for number in (_PRIME, _GENERATOR))
    lines = textwrap.wrap(base64.b64encode(_encoded(_SEQUENCE, numbers)).decode(), 64)
    return "\n".join(("-----BEGIN DH PARAMETERS-----", *lines, "-----END DH PARAMETERS-----", "")).encode()


def _bytes(number: int) -> bytes:
    return number.to_bytes(number.bit_length() // 8 + 1)  # with a leading zero: it is not negative


def _encoded(tag: int, content: bytes) -> bytes:
    """DER."""
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes((tag, 0x80 | len(length))) + length + content
