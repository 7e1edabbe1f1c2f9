"""Signed documents of real form: each is good for one node, one key and one time, and a forgery for none."""

import json
from collections.abc import Callable, Sequence
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from agent.wire import JoinRequest
from engine.clock import ManualClock
from engine.errors import AuthenticationFailed, ProviderUnavailable
from engine.fleet.admission import CHALLENGE_LIFE, FIRST_JOIN_WITHIN, Admission, Attestation
from engine.model.attestation import audience, ten_digits
from engine.model.capacity import Resources
from engine.model.ids import NodeId
from engine.store.attested_instances import AttestedInstances
from engine.store.database import Database
from engine.store.join_tokens import JoinTokens
from providers.base import InstanceRecord
from providers.registry import open_attestor
from providers.sandbox.signers import InstanceSigners
from tests.instance_identity import ACCOUNT, NOW, another_cloud, settings, signers

NODE, OTHER = NodeId("n1"), NodeId("n2")
Sign = Callable[[InstanceSigners, str, str, str], str]


def _aws(by: InstanceSigners, instance: str, account: str, _challenge: str) -> str:
    return by.aws_document(json.dumps({"accountId": account, "instanceId": instance, "region": "r1"}))


def _gcp(by: InstanceSigners, instance: str, account: str, challenge: str) -> str:
    said = {"instance_id": instance, "project_id": account, "zone": "r1-a"}
    return by.google_token(audience(challenge), said, NOW)


def _azure(by: InstanceSigners, instance: str, account: str, challenge: str) -> str:
    said = {"nonce": ten_digits(challenge), "subscriptionId": account, "vmId": instance}
    return by.azure_document(said, NOW)


SIGN: dict[str, Sign] = {"aws": _aws, "gcp": _gcp, "azure": _azure}
BOUND = ["gcp", "azure"]
"""Those whose documents carry our challenge."""


class Inventory:
    """The provider's list of instances; ``broken`` is raised instead."""

    def __init__(self) -> None:
        self.records = [record("i-1", NODE), record("i-2", OTHER)]
        self.broken: Exception | None = None

    def instances(self) -> Sequence[InstanceRecord]:
        if self.broken is not None:
            raise self.broken
        return self.records

    def terminate(self, instance_id: str) -> None:
        raise AssertionError("nobody is ended here")


def record(instance: str, node: NodeId, region: str = "r1") -> InstanceRecord:
    return InstanceRecord(
        instance_id=instance, node=node, token="", region=region, zone=f"{region}-a", instance_type="t",
        running=False, launched_at=NOW,
    )  # fmt: skip


class Gate:
    def __init__(self, database: Database, kind: str) -> None:
        self.clock, self.inventory, self.kind = ManualClock(NOW), Inventory(), kind
        self.tokens = JoinTokens(database, self.clock, b"secret")
        attestor = open_attestor(settings(kind), clock=self.clock)
        assert attestor is not None
        how = Attestation(provider=kind, account=ACCOUNT, attestor=attestor, inventory=self.inventory)
        self.admission = Admission(
            tokens=self.tokens, instances=AttestedInstances(database, self.clock), secret=b"secret", clock=self.clock,
            attestation_of=lambda node: None if node == "tokened" else how,
        )  # fmt: skip

    def asked(
        self,
        *,
        node: NodeId = NODE,
        csr: str | None = None,
        by: InstanceSigners | None = None,
        instance: str = "i-1",
        account: str = ACCOUNT,
    ) -> JoinRequest:
        csr = csr or new_csr()
        challenge = self.admission.challenge(node, csr)
        evidence = SIGN[self.kind](by or signers(), instance, account, challenge)
        return JoinRequest(
            node=node, challenge=challenge, evidence=evidence, csr_pem=csr, agent_url="https://h:1",
            underlay_address="127.0.0.1", capacity=Resources(vcpus=1, memory_gib=1),
        )  # fmt: skip


def new_csr() -> str:
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    signed = request.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM).decode()


@pytest.fixture(params=sorted(SIGN))
def gate(request: pytest.FixtureRequest, database: Database) -> Gate:
    return Gate(database, request.param)


def test_an_instance_joins_on_its_providers_word_and_again_with_its_key(gate: Gate) -> None:
    csr = new_csr()
    gate.admission.admit(gate.asked(csr=csr))
    gate.admission.admit(gate.asked(csr=csr))


def test_a_document_of_an_instance_that_has_joined_is_refused(gate: Gate) -> None:
    gate.admission.admit(gate.asked())
    with pytest.raises(AuthenticationFailed, match="joined already, with another key"):
        gate.admission.admit(gate.asked())


def test_a_request_that_was_overheard_is_of_no_use_with_another_key(gate: Gate) -> None:
    overheard = gate.asked()
    with pytest.raises(AuthenticationFailed, match="another node or key"):
        gate.admission.admit(overheard.model_copy(update={"csr_pem": new_csr()}))
    with pytest.raises(AuthenticationFailed, match="another node or key"):
        gate.admission.admit(overheard.model_copy(update={"node": OTHER}))


@pytest.mark.parametrize("kind", BOUND)
def test_a_document_that_answers_another_challenge_is_refused(database: Database, kind: str) -> None:
    gate, csr = Gate(database, kind), new_csr()
    stolen = gate.asked().evidence
    with pytest.raises(AuthenticationFailed, match="another challenge"):
        gate.admission.admit(gate.asked(csr=csr).model_copy(update={"evidence": stolen}))


def test_another_nodes_instance_is_refused(gate: Gate) -> None:
    with pytest.raises(AuthenticationFailed, match="another node's"):
        gate.admission.admit(gate.asked(instance="i-2"))


def test_an_instance_of_another_account_is_refused(gate: Gate) -> None:
    with pytest.raises(AuthenticationFailed, match="another account"):
        gate.admission.admit(gate.asked(account="somebody-else"))


def test_a_forged_document_is_refused(gate: Gate) -> None:
    with pytest.raises(AuthenticationFailed, match="signed identity is refused"):
        gate.admission.admit(gate.asked(by=another_cloud()))


@pytest.mark.parametrize("kind", ["aws", "gcp"])
def test_an_instance_that_says_another_region_than_its_record_is_refused(database: Database, kind: str) -> None:
    gate = Gate(database, kind)
    gate.inventory.records = [record("i-1", NODE, region="r2")]
    with pytest.raises(AuthenticationFailed, match="another region"):
        gate.admission.admit(gate.asked())


def test_a_challenge_runs_out(gate: Gate) -> None:
    asked = gate.asked()
    gate.clock.advance(CHALLENGE_LIFE + timedelta(seconds=1))
    with pytest.raises(AuthenticationFailed, match="too old"):
        gate.admission.admit(asked)


@pytest.mark.parametrize("challenge", ["", ".", "99999999999.", "1.x", "-1.x", "²³.x", "é"])
def test_a_challenge_of_ones_own_is_refused(gate: Gate, challenge: str) -> None:
    with pytest.raises(AuthenticationFailed, match="another node or key"):
        gate.admission.admit(gate.asked().model_copy(update={"challenge": challenge}))


def test_an_old_instance_that_never_joined_is_refused_and_one_that_did_is_not(database: Database) -> None:
    """AWS documents have no end, so a copy of one must not be good for ever."""
    gate, csr = Gate(database, "aws"), new_csr()
    gate.admission.admit(gate.asked(csr=csr))
    gate.clock.advance(FIRST_JOIN_WITHIN + timedelta(seconds=1))
    gate.admission.admit(gate.asked(csr=csr))
    with pytest.raises(AuthenticationFailed, match="too long ago"):
        gate.admission.admit(gate.asked(node=OTHER, instance="i-2"))


def test_a_token_does_not_help_where_the_provider_vouches(gate: Gate) -> None:
    asked = gate.asked().model_copy(update={"evidence": "", "token": gate.tokens.issue(NODE)})
    with pytest.raises(AuthenticationFailed, match="by their signed identity"):
        gate.admission.admit(asked)


def test_a_token_is_what_counts_where_it_does_not(gate: Gate) -> None:
    node = NodeId("tokened")
    asked = gate.asked().model_copy(update={"node": node, "token": gate.tokens.issue(node)})
    gate.admission.admit(asked)
    with pytest.raises(AuthenticationFailed, match="wrong, used or too old"):
        gate.admission.admit(asked.model_copy(update={"csr_pem": new_csr()}))


@pytest.mark.parametrize("problem", [ProviderUnavailable("down"), AuthenticationFailed("our own key is refused")])
def test_a_provider_that_cannot_say_makes_the_node_wait(gate: Gate, problem: Exception) -> None:
    gate.inventory.broken = problem
    with pytest.raises(ProviderUnavailable, match="cannot say yet"):
        gate.admission.admit(gate.asked())


def test_an_instance_that_is_not_listed_yet_waits(gate: Gate) -> None:
    gate.inventory.records = []
    with pytest.raises(ProviderUnavailable, match="does not list"):
        gate.admission.admit(gate.asked())
