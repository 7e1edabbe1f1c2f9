"""Identity of EC2 instances: the identity document, signed as PKCS #7 with RSA-2048, from the metadata address.

The document takes no challenge and has no end: whoever holds a copy could show it. That a first use must come soon
after the launch, and that there is one use per instance, is the admission's part (engine/fleet/admission.py).
"""

from base64 import b64decode

from cryptography import x509
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.clock import Clock
from engine.model.attestation import AttestedInstance
from providers.attestation_keys import refused, trusted_certificates
from providers.base import ProviderSettings
from providers.signed_data import NotSigned, parse


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    account: str = Field(alias="accountId")
    instance_id: str = Field(alias="instanceId")
    region: str


class AwsAttestor:
    """``attestation_keys``: the RSA-2048 certificates that AWS publishes for the regions in use, in one PEM file."""

    def __init__(self, settings: ProviderSettings, *, clock: Clock) -> None:
        self._settings, self._clock = settings, clock
        self._trusted = trusted_certificates(settings)

    def attested(self, evidence: str, challenge: str) -> AttestedInstance:
        try:
            signed = parse(b64decode("".join(evidence.split()), validate=True))
            signer = signed.signer(self._trusted)
            document = _Document.model_validate_json(signed.content)
        except NotSigned as problem:
            raise refused(self._settings, str(problem)) from None
        except (ValidationError, ValueError):
            raise refused(self._settings, "it is no identity document") from None
        self._require_valid(signer)
        return AttestedInstance(instance_id=document.instance_id, account=document.account, region=document.region)

    def _require_valid(self, signer: x509.Certificate) -> None:
        if not signer.not_valid_before_utc <= self._clock.now() <= signer.not_valid_after_utc:
            raise refused(self._settings, "the certificate that it was signed with has expired")
