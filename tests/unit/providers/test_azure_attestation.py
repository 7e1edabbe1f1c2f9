from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from engine.clock import ManualClock
from engine.errors import AuthenticationFailed
from engine.model.attestation import AttestedInstance, ten_digits
from providers.azure_attestation import AzureAttestor
from providers.sandbox.signers import InstanceSigners
from tests.instance_identity import ACCOUNT, NOW, another_cloud, settings, signers

CHALLENGE = "1.abc"


def document(by: InstanceSigners | None = None, **changes: str) -> str:
    said = {"nonce": ten_digits(CHALLENGE), "subscriptionId": ACCOUNT, "vmId": "vm-1", **changes}
    return (by or signers()).azure_document(said, NOW)


def attested(evidence: str, *, after: timedelta = timedelta(0), keys: Path | None = None) -> AttestedInstance:
    configured = settings("azure", None if keys is None else str(keys))
    return AzureAttestor(configured, clock=ManualClock(NOW + after)).attested(evidence, CHALLENGE)


def test_an_attested_document_says_which_machine_it_is() -> None:
    assert attested(document()) == AttestedInstance(instance_id="vm-1", account=ACCOUNT)


def test_the_answer_to_another_challenge_is_refused() -> None:
    with pytest.raises(AuthenticationFailed, match="another challenge"):
        attested(document(nonce=ten_digits("1.abd")))


def test_an_old_document_is_refused() -> None:
    attested(document(), after=timedelta(hours=5))
    with pytest.raises(AuthenticationFailed, match="has expired"):
        attested(document(), after=timedelta(hours=6))


def test_a_signer_of_no_configured_authority_is_refused() -> None:
    with pytest.raises(AuthenticationFailed, match="no configured authority"):
        attested(document(another_cloud()))


def test_a_signer_that_is_not_azures_is_refused_though_the_authority_is_trusted(tmp_path: Path) -> None:
    """The same authority signs for many; here it is trusted to sign for itself, and signs as AWS does."""
    keys = signers().keys_of("aws")
    assert keys is not None
    trusted = tmp_path / "both.pem"
    trusted.write_bytes(keys.read_bytes())
    with pytest.raises(AuthenticationFailed, match=r"not metadata\.azure\.com"):
        attested(_signed_as_aws(), keys=trusted)


@pytest.mark.parametrize("evidence", ["", "AAAA", "%", "MIAG"])
def test_rubbish_is_refused_by_name(evidence: str) -> None:
    with pytest.raises(AuthenticationFailed, match="signed identity is refused"):
        attested(evidence)


def test_the_authority_in_the_file_is_no_secret() -> None:
    path = signers().keys_of("azure")
    assert path is not None
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    assert path.read_bytes() == certificate.public_bytes(serialization.Encoding.PEM)


def _signed_as_aws() -> str:
    return signers().aws_document(f'{{"nonce": "{ten_digits(CHALLENGE)}", "subscriptionId": "s", "vmId": "v"}}')
