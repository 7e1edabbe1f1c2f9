"""Signed data of our own making, read as both real providers write it, and nothing else."""

import random
from base64 import b64decode

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import pkcs7

from providers.signed_data import NotSigned, parse
from tests.instance_identity import another_cloud, signers

CONTENT = '{"instanceId": "i-1"}'


@pytest.fixture(scope="module")
def document() -> bytes:
    return b64decode(signers().aws_document(CONTENT))


@pytest.fixture(scope="module")
def trusted() -> x509.Certificate:
    path = signers().keys_of("aws")
    assert path is not None
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_the_content_is_what_its_key_signed(document: bytes, trusted: x509.Certificate) -> None:
    signed = parse(document)
    assert signed.content.decode() == CONTENT
    assert signed.signer([trusted]) == trusted


def test_open_lengths_and_pieces_are_read_too(document: bytes, trusted: x509.Certificate) -> None:
    """As AWS writes it: the outer parts with open lengths, the content as a constructed octet string."""
    opened = opened_up(document)
    assert opened[:2] == b"\x30\x80"
    signed = parse(opened)
    assert signed.content.decode() == CONTENT
    assert signed.signer([trusted]) == trusted


def test_another_key_made_nothing(document: bytes) -> None:
    path = another_cloud().keys_of("aws")
    assert path is not None
    with pytest.raises(NotSigned, match="no known key"):
        parse(document).signer([x509.load_pem_x509_certificate(path.read_bytes())])


def test_changed_content_is_named(document: bytes, trusted: x509.Certificate) -> None:
    with pytest.raises(NotSigned, match="changed"):
        parse(document.replace(b"i-1", b"i-2")).signer([trusted])


def test_two_signatures_are_one_too_many(trusted: x509.Certificate) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    builder = pkcs7.PKCS7SignatureBuilder().set_data(CONTENT.encode())
    for _ in range(2):
        builder = builder.add_signer(trusted_like(trusted, key), key, hashes.SHA256())
    with pytest.raises(NotSigned, match="2 signatures"):
        parse(builder.sign(serialization.Encoding.DER, [pkcs7.PKCS7Options.Binary])).signer([trusted])


def test_content_that_is_not_inside_is_not_accepted() -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    path = signers().keys_of("aws")
    assert path is not None
    certificate = trusted_like(x509.load_pem_x509_certificate(path.read_bytes()), key)
    builder = pkcs7.PKCS7SignatureBuilder().set_data(b"x").add_signer(certificate, key, hashes.SHA256())
    detached = [pkcs7.PKCS7Options.Binary, pkcs7.PKCS7Options.DetachedSignature]
    with pytest.raises(NotSigned, match="not inside"):
        parse(builder.sign(serialization.Encoding.DER, detached))


@pytest.mark.parametrize(
    "rubbish", [b"", b"\x30", b"\x30\x80", b"\x30\x84\xff\xff\xff\xff", b"\x1f\x81\x01", b"\x30\x00", b"\x30\x80" * 40]
)
def test_rubbish_is_refused(rubbish: bytes) -> None:
    with pytest.raises(NotSigned):
        parse(rubbish)


def test_whatever_byte_is_changed_no_other_content_is_believed(document: bytes, trusted: x509.Certificate) -> None:
    rng = random.Random(3)
    for _ in range(300):
        changed = bytearray(document)
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        try:
            signed = parse(bytes(changed))
            signed.signer([trusted])
        except NotSigned:
            continue
        assert signed.content.decode() == CONTENT


def test_what_is_behind_the_document_is_refused(document: bytes) -> None:
    with pytest.raises(NotSigned, match="behind"):
        parse(document + b"\0")


def trusted_like(certificate: x509.Certificate, key: rsa.RSAPrivateKey) -> x509.Certificate:
    """The same names, another key: what a forger can make."""
    return (
        x509.CertificateBuilder()
        .subject_name(certificate.subject)
        .issuer_name(certificate.issuer)
        .public_key(key.public_key())
        .serial_number(certificate.serial_number)
        .not_valid_before(certificate.not_valid_before_utc)
        .not_valid_after(certificate.not_valid_after_utc)
        .sign(key, hashes.SHA256())
    )


def opened_up(document: bytes) -> bytes:
    """Re-encode the three outermost levels with open lengths and the content in two pieces."""
    kind, wrapped = _parts(document)
    (body,) = _parts(wrapped)
    version, digests, inner, *rest = _parts(body)
    content_type, wrapped_content = _parts(inner)
    content = _value(_value(wrapped_content))
    half = len(content) // 2
    pieces = _open(0x24, b"".join(bytes([0x04, len(part)]) + part for part in (content[:half], content[half:])))
    inner = _open(0x30, content_type + _open(0xA0, pieces))
    return _open(0x30, kind + _open(0xA0, _open(0x30, version + digests + inner + b"".join(rest))))


def _open(tag: int, content: bytes) -> bytes:
    return bytes([tag, 0x80]) + content + b"\0\0"


def _header(data: bytes) -> tuple[int, int]:
    """(length of the header, length of the value)"""
    if data[1] < 0x80:
        return 2, data[1]
    size = data[1] & 0x7F
    return 2 + size, int.from_bytes(data[2 : 2 + size])


def _value(data: bytes) -> bytes:
    head, length = _header(data)
    return data[head : head + length]


def _parts(data: bytes) -> list[bytes]:
    parts, rest = [], _value(data)
    while rest:
        head, length = _header(rest)
        parts.append(rest[: head + length])
        rest = rest[head + length :]
    return parts
