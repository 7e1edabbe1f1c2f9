"""PKCS #7 / CMS signed data (RFC 5652) with its content inside: who signed it, and that nothing was changed.

Read by hand because neither of our libraries verifies it: BER as far as signed data needs it. AWS writes indefinite
lengths and octet strings in pieces, Azure definite ones. Everything else is refused.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

_OCTETS, _OID, _SEQUENCE, _SET, _EXPLICIT_0 = 0x04, 0x06, 0x30, 0x31, 0xA0
_CONSTRUCTED = 0x20
_DEEPEST = 16
_SIGNED_DATA = bytes.fromhex("2a864886f70d010702")
_MESSAGE_DIGEST = bytes.fromhex("2a864886f70d010904")
_CONTENT_TYPE = bytes.fromhex("2a864886f70d010903")
_DIGESTS: dict[bytes, tuple[str, hashes.HashAlgorithm]] = {
    bytes.fromhex("608648016503040201"): ("sha256", hashes.SHA256()),
    bytes.fromhex("608648016503040202"): ("sha384", hashes.SHA384()),
    bytes.fromhex("608648016503040203"): ("sha512", hashes.SHA512()),
}


class NotSigned(Exception):
    """The document cannot be read or its signature does not hold; the text says which."""


@dataclass(frozen=True)
class SignedData:
    """``certificates`` are those inside: claims, until somebody trusts one of them."""

    content: bytes
    certificates: tuple[x509.Certificate, ...]
    _content_type: bytes
    _signers: tuple["_Element", ...]

    def signer(self, candidates: Iterable[x509.Certificate]) -> x509.Certificate:
        """The first of ``candidates`` whose key made the (only) signature over ``content``. Raises NotSigned."""
        if len(self._signers) != 1:
            raise NotSigned(f"{len(self._signers)} signatures where there must be one")
        algorithm, signed, signature = _signer_parts(self._signers[0], self.content, self._content_type)
        for certificate in candidates:
            key = certificate.public_key()
            if not isinstance(key, rsa.RSAPublicKey) or key.key_size < 2048:
                continue
            try:
                key.verify(signature, signed, padding.PKCS1v15(), algorithm)
            except InvalidSignature:
                continue
            return certificate
        raise NotSigned("no known key made its signature")


def parse(document: bytes) -> SignedData:
    """Raises NotSigned for what is not signed data with its content inside."""
    try:
        outer, end = _read(document, 0, len(document))
        if end != len(document):
            raise NotSigned("there is something behind the document")
        kind, wrapped = outer.children(_SEQUENCE)
        if kind.content != _SIGNED_DATA:
            raise NotSigned("it is not signed data")
        (body,) = wrapped.children(_EXPLICIT_0)
        _version, _digests, inner, *rest = body.children(_SEQUENCE)
        content_type, *content = inner.children(_SEQUENCE)
        if len(content) != 1 or content_type.tag != _OID:
            raise NotSigned("its content is not inside")
        (octets,) = content[0].children(_EXPLICIT_0)
        certificates = [
            x509.load_der_x509_certificate(one.raw)
            for part in rest
            if part.tag == _EXPLICIT_0
            for one in part.children(_EXPLICIT_0)
        ]
        signers = [one for part in rest if part.tag == _SET for one in part.children(_SET)]
    except (ValueError, IndexError) as problem:
        raise NotSigned("it cannot be read") from problem
    return SignedData(octets.octets(), tuple(certificates), content_type.content, tuple(signers))


def _signer_parts(signer: "_Element", content: bytes, content_type: bytes) -> tuple[hashes.HashAlgorithm, bytes, bytes]:
    """(digest algorithm, the bytes that are signed, the signature)"""
    try:
        _version, _who, digest, *rest = signer.children(_SEQUENCE)
        attributes = rest.pop(0) if rest[0].tag == _EXPLICIT_0 else None
        _algorithm, signature = rest[:2]
        name, algorithm = _DIGESTS[digest.children(_SEQUENCE)[0].content]
        if attributes is None:
            return algorithm, content, signature.octets()
        said = {kind.content: values.children(_SET) for kind, values in map(_pair, attributes.children(_EXPLICIT_0))}
        if [one.octets() for one in said[_MESSAGE_DIGEST]] != [hashlib.new(name, content).digest()]:
            raise NotSigned("its content was changed")
        if [one.content for one in said[_CONTENT_TYPE]] != [content_type]:
            raise NotSigned("its content is of another type than was signed")
        # What is signed is the set itself, not the implicit tag that stands in its place.
        return algorithm, bytes([_SET]) + attributes.raw[1:], signature.octets()
    except (ValueError, IndexError, KeyError) as problem:
        raise NotSigned("its signature cannot be read") from problem


def _pair(attribute: "_Element") -> tuple["_Element", "_Element"]:
    kind, values = attribute.children(_SEQUENCE)
    return kind, values


@dataclass(frozen=True)
class _Element:
    """One tag, length and value; ``raw`` is all of it."""

    tag: int
    content: bytes
    raw: bytes
    parts: tuple["_Element", ...]

    def children(self, tag: int) -> Sequence["_Element"]:
        if self.tag != tag:
            raise ValueError(f"tag {self.tag:#x} where {tag:#x} belongs")
        return self.parts

    def octets(self) -> bytes:
        """The octet string, put together where it comes in pieces."""
        if self.tag == _OCTETS:
            return self.content
        if self.tag == _OCTETS | _CONSTRUCTED:
            return b"".join(part.octets() for part in self.parts)
        raise ValueError("not an octet string")


def _read(data: bytes, at: int, limit: int, depth: int = 0) -> tuple[_Element, int]:
    """The element that begins at ``at`` and ends by ``limit``, and its end. Raises ValueError or IndexError."""
    start, tag, first = at, data[at], data[at + 1]
    at += 2
    if depth > _DEEPEST or tag & 0x1F == 0x1F:
        raise ValueError("too deep, or a tag that signed data has not")
    if first == 0x80:
        return _read_open(data, start, limit, depth)
    length = first
    if first & 0x80:
        size = first & 0x7F
        length, at = int.from_bytes(data[at : at + size]), at + size
    end = at + length
    if end > limit:
        raise ValueError("cut off")
    parts: list[_Element] = []
    inner = at
    while tag & _CONSTRUCTED and inner < end:
        part, inner = _read(data, inner, end, depth + 1)
        parts.append(part)
    return _Element(tag, data[at:end], data[start:end], tuple(parts)), end


def _read_open(data: bytes, start: int, limit: int, depth: int) -> tuple[_Element, int]:
    """Of indefinite length: parts until two zero bytes."""
    tag, at, parts = data[start], start + 2, list[_Element]()
    if not tag & _CONSTRUCTED:
        raise ValueError("an open length without parts")
    while data[at : at + 2] != b"\0\0":
        part, at = _read(data, at, limit, depth + 1)
        parts.append(part)
    if at + 2 > limit:
        raise ValueError("cut off")
    return _Element(tag, data[start + 2 : at], data[start : at + 2], tuple(parts)), at + 2
