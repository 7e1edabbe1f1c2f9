import json
from datetime import timedelta
from pathlib import Path

import pytest

from engine.clock import ManualClock
from engine.errors import AuthenticationFailed, ConfigurationError
from engine.model.attestation import AttestedInstance
from providers.aws_attestation import AwsAttestor
from tests.instance_identity import ACCOUNT, NOW, another_cloud, settings, signers

DOCUMENT = {"accountId": ACCOUNT, "instanceId": "i-1", "region": "r1", "pendingTime": "2026-11-23T12:00:00Z"}


def attested(evidence: str, *, after: timedelta = timedelta(0)) -> AttestedInstance:
    return AwsAttestor(settings("aws"), clock=ManualClock(NOW + after)).attested(evidence, "any challenge")


def test_a_signed_document_says_who_the_instance_is() -> None:
    found = attested(signers().aws_document(json.dumps(DOCUMENT)))
    assert found == AttestedInstance(instance_id="i-1", account=ACCOUNT, region="r1")


def test_a_document_of_another_cloud_is_refused() -> None:
    with pytest.raises(AuthenticationFailed, match="no known key"):
        attested(another_cloud().aws_document(json.dumps(DOCUMENT)))


def test_a_signer_whose_certificate_has_expired_is_refused() -> None:
    with pytest.raises(AuthenticationFailed, match="expired"):
        attested(signers().aws_document(json.dumps(DOCUMENT)), after=timedelta(days=8))


@pytest.mark.parametrize("evidence", ["", "not base64!", "AAAA", "é", "MIAG"])
def test_rubbish_is_refused_by_name(evidence: str) -> None:
    with pytest.raises(AuthenticationFailed, match="signed identity is refused"):
        attested(evidence)


@pytest.mark.parametrize("content", ["{}", "[]", "x", '{"accountId": 5}'])
def test_a_signed_document_of_another_sort_is_refused(content: str) -> None:
    with pytest.raises(AuthenticationFailed, match="no identity document"):
        attested(signers().aws_document(content))


@pytest.mark.parametrize("content", [None, b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_keys_that_cannot_be_used_are_named_before_anybody_joins(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "keys.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"providers\.aws\.attestation_keys"):
        AwsAttestor(settings("aws", str(file)), clock=ManualClock(NOW))
