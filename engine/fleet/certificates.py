"""The fleet's own certificate authority: P-256, leaves of one hour, identity in a SPIFFE-style URI.

Nodes are on someone else's network, so both sides of every connection show a certificate of this authority. A leaf
names its owner twice: as a URI (what the other side authorises) and as a DNS name (what TLS libraries and QEMU verify).
"""

import ipaddress
import os
import threading
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import structlog
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from agent.wire import CONTROL_NAME, Certificate, control_identity, node_identity
from engine.clock import Clock
from engine.errors import AuthenticationFailed
from engine.model.ids import NodeId

LEAF_LIFE = timedelta(hours=1)
_CA_LIFE = timedelta(days=3650)
_CLOCK_SKEW = timedelta(minutes=5)
_TRY_AGAIN_AFTER = timedelta(seconds=30)
_log = structlog.get_logger()


class CertificateAuthority:
    """Signs for nodes and for the control plane. Its key never leaves the folder that it was loaded from."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey, clock: Clock) -> None:
        self._certificate, self._key, self._clock = certificate, key, clock

    @classmethod
    def load_or_create(cls, folder: Path, clock: Clock) -> "CertificateAuthority":
        """``ca.key`` (mode 0600) and ``ca.pem`` in ``folder``; made on first use."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        key_file, certificate_file = folder / "ca.key", folder / "ca.pem"
        if not (key_file.exists() and certificate_file.exists()):
            key = ec.generate_private_key(ec.SECP256R1())
            certificate = _self_signed(key, clock.now())
            write_private(key_file, _key_pem(key))
            write_private(certificate_file, certificate.public_bytes(serialization.Encoding.PEM))
        return cls(x509.load_pem_x509_certificate(certificate_file.read_bytes()), _load_key(key_file), clock)

    @property
    def ca_pem(self) -> str:
        return self._certificate.public_bytes(serialization.Encoding.PEM).decode()

    def sign_node(self, node: NodeId, csr_pem: str) -> Certificate:
        """A leaf for ``node``; of the request only the public key counts. Raises AuthenticationFailed."""
        require_no_control_name(node)
        public = public_key_of(csr_pem)
        return self._leaf(public, common_name=node, uri=node_identity(node), names=(node,), addresses=())

    def sign_control(self, public: ec.EllipticCurvePublicKey, hosts: Sequence[str] = ()) -> Certificate:
        """A leaf for the control plane; ``hosts`` are further DNS names or addresses it is reached by."""
        names, addresses = [CONTROL_NAME], []
        for host in hosts:
            try:
                addresses.append(ipaddress.ip_address(host))
            except ValueError:
                names.append(host)
        return self._leaf(public, common_name=CONTROL_NAME, uri=control_identity(), names=names, addresses=addresses)

    def _leaf(
        self,
        public: ec.EllipticCurvePublicKey,
        *,
        common_name: str,
        uri: str,
        names: Sequence[str],
        addresses: Sequence[ipaddress.IPv4Address | ipaddress.IPv6Address],
    ) -> Certificate:
        now = self._clock.now()
        alternatives: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri)]
        alternatives += [x509.DNSName(name) for name in names]
        alternatives += [x509.IPAddress(address) for address in addresses]
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(common_name[:64]))
            .issuer_name(self._certificate.subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _CLOCK_SKEW)
            .not_valid_after(now + LEAF_LIFE)
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(leaf=True), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        signed = builder.sign(self._key, hashes.SHA256())
        pem = signed.public_bytes(serialization.Encoding.PEM).decode()
        return Certificate(certificate_pem=pem, ca_pem=self.ca_pem, not_after=signed.not_valid_after_utc)


class ControlCredentials:
    """The control plane's own key and leaf on disk, renewed when half of its life is over. Safe to share.

    Several things show the same leaf, each with a TLS context that keeps what it has read. So each remembers the
    generation that it has read and reads again when ``current`` says another:

        generation = credentials.current()
        if generation != loaded:
            context.load_cert_chain(credentials.certificate_file, credentials.key_file)
            loaded = generation
    """

    def __init__(self, authority: CertificateAuthority, folder: Path, clock: Clock, hosts: Sequence[str] = ()) -> None:
        self._authority, self._clock, self._hosts = authority, clock, tuple(hosts)
        self.key_file, self.certificate_file, self.ca_file = (
            folder / "control.key",
            folder / "control.pem",
            folder / "ca.pem",
        )
        self._lock = threading.Lock()
        self._generation = 0
        self._renew_at = clock.now()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self.key_file.exists():
            write_private(self.key_file, _key_pem(ec.generate_private_key(ec.SECP256R1())))
        # Kept, so that a second process of the same control plane does not make the first one's files useless.
        self._key = _load_key(self.key_file)
        if not self.ca_file.exists() or self.ca_file.read_text() != authority.ca_pem:
            write_private(self.ca_file, authority.ca_pem.encode())

    def current(self) -> int:
        """The generation of the files, which are renewed at half life by whoever calls: it rises with every leaf.

        One that cannot be renewed stays, which is logged, and is tried again. Raises OSError where there was none yet.
        """
        with self._lock:
            now = self._clock.now()
            if now >= self._renew_at:
                self._renew(now)
            return self._generation

    def _renew(self, now: datetime) -> None:
        leaf = self._authority.sign_control(self._key.public_key(), self._hosts)
        try:
            # The key stays, so a reader finds a leaf that matches it, the old one or the new.
            write_private(self.certificate_file, leaf.certificate_pem.encode())
        except OSError as problem:
            if self._generation == 0:
                raise
            _log.warning("the control plane's certificate cannot be renewed yet", error=str(problem))
            self._renew_at = now + _TRY_AGAIN_AFTER
            return
        self._generation += 1
        self._renew_at = now + (leaf.not_after - now) / 2


def is_control_name(name: str) -> bool:
    """Whether TLS would take a leaf with this DNS name for the control plane's: it compares without regard to case."""
    return name.rstrip(".").lower() == CONTROL_NAME


def require_no_control_name(node: NodeId) -> None:
    """Raises AuthenticationFailed: with such a leaf its host could pose as the control plane to every agent."""
    if is_control_name(node):
        raise AuthenticationFailed(f"no node may be named {node}", why="that is the control plane's name")


def public_key_of(csr_pem: str) -> ec.EllipticCurvePublicKey:
    """The public key of a request that proves possession of the private one. Raises AuthenticationFailed."""
    try:
        request = x509.load_pem_x509_csr(csr_pem.encode())
        public = request.public_key()
        valid = request.is_signature_valid
    except (ValueError, InvalidSignature) as problem:
        raise AuthenticationFailed("the certificate request cannot be read", why=str(problem)) from problem
    if not valid or not isinstance(public, ec.EllipticCurvePublicKey):
        raise AuthenticationFailed("the certificate request is not signed by its own elliptic-curve key")
    return public


def public_key_digest(csr_pem: str) -> str:
    """SHA-256 (hex) of the request's public key."""
    return _digest(public_key_of(csr_pem))


def certificate_key_digest(certificate: bytes) -> str:
    """The same of a certificate (DER) that was verified. Raises AuthenticationFailed."""
    public = x509.load_der_x509_certificate(certificate).public_key()
    if not isinstance(public, ec.EllipticCurvePublicKey):
        raise AuthenticationFailed("the certificate is not for an elliptic-curve key")
    return _digest(public)


def write_private(path: Path, content: bytes) -> None:
    """Replace ``path``, whole or not at all, by a file that only its owner can read."""
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(handle)
    draft.replace(path)


def _digest(public: ec.EllipticCurvePublicKey) -> str:
    spki = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    digest = hashes.Hash(hashes.SHA256())
    digest.update(spki)
    return digest.finalize().hex()


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        loaded = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except ValueError as problem:
        raise AuthenticationFailed(f"{path.name} holds no key", why=str(problem)) from problem
    if not isinstance(loaded, ec.EllipticCurvePrivateKey):
        raise AuthenticationFailed(f"{path.name} does not hold an elliptic-curve key")
    return loaded


def _self_signed(key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    name = _name("Shardwright fleet CA")
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + _CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(leaf=False), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return builder.sign(key, hashes.SHA256())


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _key_usage(*, leaf: bool) -> x509.KeyUsage:
    # QEMU refuses a leaf without key encipherment although ECDHE does not use it.
    return x509.KeyUsage(
        digital_signature=leaf, key_encipherment=leaf, key_cert_sign=not leaf, crl_sign=not leaf,
        content_commitment=False, data_encipherment=False, key_agreement=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
