"""Identity of Azure virtual machines: the attested document, PKCS #7 with our challenge inside, good for six hours.

The signer's certificate travels in the document. It counts once it names metadata.azure.com (or a part of it) and
leads to a configured authority.
"""

from base64 import b64decode
from datetime import datetime

from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.clock import Clock
from engine.model.attestation import AttestedInstance, ten_digits
from providers.attestation_keys import refused, trusted_certificates
from providers.base import ProviderSettings
from providers.signed_data import NotSigned, parse

_SIGNER = "metadata.azure.com"


class _Times(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    expires_on: str = Field(alias="expiresOn")


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    nonce: str
    subscription: str = Field(alias="subscriptionId")
    vm_id: str = Field(alias="vmId")
    times: _Times = Field(alias="timeStamp")


class AzureAttestor:
    """``attestation_keys``: the roots, and the intermediate authorities that documents leave out, in one PEM file."""

    def __init__(self, settings: ProviderSettings, *, clock: Clock) -> None:
        self._settings, self._clock = settings, clock
        self._trusted = Store(list(trusted_certificates(settings)))

    def attested(self, evidence: str, challenge: str) -> AttestedInstance:
        try:
            signed = parse(b64decode("".join(evidence.split()), validate=True))
            signer = signed.signer(signed.certificates)
            self._require_trusted(signer, signed.certificates)
            document = _Document.model_validate_json(signed.content)
            ends = datetime.strptime(document.times.expires_on, "%m/%d/%y %H:%M:%S %z")
        except NotSigned as problem:
            raise refused(self._settings, str(problem)) from None
        except (ValidationError, ValueError):
            raise refused(self._settings, "it is no attested document") from None
        if ends <= self._clock.now():
            raise refused(self._settings, "it has expired")
        if document.nonce != ten_digits(challenge):
            raise refused(self._settings, "it answers another challenge")
        return AttestedInstance(instance_id=document.vm_id, account=document.subscription)

    def _require_trusted(self, signer: x509.Certificate, others: tuple[x509.Certificate, ...]) -> None:
        name = _name_of(signer)
        if name is None:
            raise refused(self._settings, f"its signer is not {_SIGNER}")
        policy = PolicyBuilder().store(self._trusted).time(self._clock.now())
        try:
            policy.build_server_verifier(x509.DNSName(name)).verify(signer, [one for one in others if one != signer])
        except VerificationError:
            raise refused(self._settings, "its signer's certificate leads to no configured authority") from None


def _name_of(certificate: x509.Certificate) -> str | None:
    """The name under metadata.azure.com that the certificate carries."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None
    for name in names.get_values_for_type(x509.DNSName):
        if name == _SIGNER or name.endswith(f".{_SIGNER}"):
            return name
    return None
