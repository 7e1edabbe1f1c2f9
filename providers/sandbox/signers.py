"""The sandbox clouds' own signing keys: instances of a sandbox prove who they are with real signatures.

Keys live in the supervisor's memory and end with it. What a control plane checks signatures against is written to
files, in the forms in which the real providers publish it.
"""

import json
from base64 import encodebytes
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509.oid import ExtendedKeyUsageOID
from joserfc import jwt
from joserfc.jwk import RSAKey

from engine.clock import Clock
from providers.sandbox.certificates import certificate_builder, common_name, key_usage

AZURE_SIGNER = "sandbox.metadata.azure.com"
_TOKEN_LIFE = timedelta(hours=1)
_DOCUMENT_LIFE = timedelta(hours=6)


class InstanceSigners:
    """``keys_of`` names, by kind of provider, the file to check its documents against; networks sign nothing."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._aws_key = _rsa()
        self._aws = _authority("Sandbox EC2 identity", self._aws_key, clock)
        authority_key, self._azure_key = _rsa(), _rsa()
        authority = _authority("Sandbox Azure authority", authority_key, clock)
        self._azure = _leaf(self._azure_key, authority, authority_key, clock)
        self._google = RSAKey.generate_key(2048, {"use": "sig", "alg": "RS256"})
        self._google_header = {"alg": "RS256", "typ": "JWT", "kid": self._google.thumbprint()}
        public = {**self._google.as_dict(private=False), "kid": self._google_header["kid"]}
        written = {
            "aws": ("aws-identity.pem", _pem(self._aws)),
            "azure": ("azure-authority.pem", _pem(authority)),
            "gcp": ("google-certs.json", json.dumps({"keys": [public]}).encode()),
        }
        self._files = {kind: folder / name for kind, (name, _) in written.items()}
        for kind, (_, content) in written.items():
            self._files[kind].write_bytes(content)

    def keys_of(self, kind: str) -> Path | None:
        return self._files.get(kind)

    def aws_document(self, document: str) -> str:
        """As ``/latest/dynamic/instance-identity/rsa2048`` gives it: base64 without head and foot."""
        return _pkcs7(document, self._aws, self._aws_key)

    def azure_document(self, said: Mapping[str, object], now: datetime) -> str:
        """The ``signature`` of an attested document that says this, and for how long."""
        form = "%m/%d/%y %H:%M:%S -0000"
        times = {"createdOn": now.strftime(form), "expiresOn": (now + _DOCUMENT_LIFE).strftime(form)}
        return _pkcs7(json.dumps({**said, "timeStamp": times}), self._azure, self._azure_key).replace("\n", "")

    def google_token(self, audience: str, said: Mapping[str, object], now: datetime) -> str:
        """An identity token for ``audience`` with these details of the instance."""
        began = int(now.timestamp())
        claims = {
            "iss": "https://accounts.google.com",
            "aud": audience,
            "iat": began,
            "exp": began + int(_TOKEN_LIFE.total_seconds()),
            "google": {"compute_engine": dict(said)},
        }
        return jwt.encode(self._google_header, claims, self._google, algorithms=["RS256"])


def _rsa() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _pkcs7(content: str, certificate: x509.Certificate, key: rsa.RSAPrivateKey) -> str:
    signing = pkcs7.PKCS7SignatureBuilder().set_data(content.encode()).add_signer(certificate, key, hashes.SHA256())
    return encodebytes(signing.sign(serialization.Encoding.DER, [pkcs7.PKCS7Options.Binary])).decode()


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _authority(name: str, key: rsa.RSAPrivateKey, clock: Clock) -> x509.Certificate:
    named = common_name(name)
    return (
        certificate_builder(named, named, key.public_key(), key.public_key(), clock)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )


def _leaf(
    key: rsa.RSAPrivateKey, authority: x509.Certificate, authority_key: rsa.RSAPrivateKey, clock: Clock
) -> x509.Certificate:
    named, alternatives = common_name(AZURE_SIGNER), x509.SubjectAlternativeName([x509.DNSName(AZURE_SIGNER)])
    return (
        certificate_builder(named, authority.subject, key.public_key(), authority_key.public_key(), clock)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(alternatives, critical=False)
        .sign(authority_key, hashes.SHA256())
    )
