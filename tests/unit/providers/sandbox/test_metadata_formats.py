import json
from base64 import b64decode
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import pytest

from providers.sandbox.contract import NOTICES, InstanceState, SandboxInstance, SandboxNotice
from providers.sandbox.metadata_formats import (
    AwsMetadata,
    AzureMetadata,
    GcpMetadata,
    NetworkMetadata,
    Question,
    answerers,
)
from providers.sandbox.nodes import HostedNode, Place
from tests.instance_identity import signers

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
SIGNERS = signers()
NOTICE = SandboxNotice(
    instance_id="i-1", node="n1", seen_at=NOW, at=NOW + timedelta(seconds=120), reason="spot interruption"
)


def node(kind: str = "aws", *, notice: SandboxNotice | None = None, address: str = "10.77.1.1") -> HostedNode:
    return HostedNode(
        provider="p",
        kind=kind,
        account="acct",
        place=Place(name="n1", namespace="sw12ab9f-n1", address=address, metadata_url="http://169.254.169.254"),
        instance=SandboxInstance(
            instance_id="i-1",
            node="n1",
            region="r1",
            zone="r1a",
            instance_type="small",
            spot=True,
            state=InstanceState.RUNNING,
            user_data="#!/bin/sh\ntrue\n",
            private_ip=None,
            launched_at=NOW,
        ),
        notice=notice,
    )


def get(path: str, *, method: str = "GET", query: dict[str, str] | None = None, **headers: str) -> Question:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Question(method=method, path=path, headers=named, query=query or {})


class TestAws:
    def token(self, aws: AwsMetadata, owner: HostedNode, ttl: str = "60", now: datetime = NOW) -> str:
        asked = get("/latest/api/token", method="PUT", x_aws_ec2_metadata_token_ttl_seconds=ttl)
        issued = aws.answer(owner, asked, now)
        assert issued.status == 200
        return issued.body

    def test_without_a_token_nothing_is_told(self) -> None:
        assert AwsMetadata(SIGNERS).answer(node(), get("/latest/meta-data/instance-id"), NOW).status == 401

    def test_a_token_opens_the_leaves_for_its_node_until_it_runs_out(self) -> None:
        aws, owner = AwsMetadata(SIGNERS), node()
        asked = get("/latest/meta-data/instance-id", x_aws_ec2_metadata_token=self.token(aws, owner))
        assert aws.answer(owner, asked, NOW).body == "i-1"
        assert aws.answer(node(address="10.77.1.2"), asked, NOW).status == 401
        assert aws.answer(owner, asked, NOW + timedelta(seconds=60)).status == 401

    @pytest.mark.parametrize("ttl", ["", "0", "21601", "soon", "-1"])
    def test_a_bad_lifetime_is_refused(self, ttl: str) -> None:
        asked = get("/latest/api/token", method="PUT", x_aws_ec2_metadata_token_ttl_seconds=ttl)
        assert AwsMetadata(SIGNERS).answer(node(), asked, NOW).status == 400
        assert AwsMetadata(SIGNERS).answer(node(), get("/latest/api/token"), NOW).status == 405

    def test_instance_action_is_absent_until_the_notice(self) -> None:
        aws = AwsMetadata(SIGNERS)
        asked = get("/latest/meta-data/spot/instance-action", x_aws_ec2_metadata_token=self.token(aws, node()))
        assert aws.answer(node(), asked, NOW).status == 404
        action = aws.answer(node(notice=NOTICE), asked, NOW)
        assert json.loads(action.body) == {"action": "terminate", "time": "2026-11-23T12:02:00Z"}

    def test_user_data_and_identity(self) -> None:
        aws = AwsMetadata(SIGNERS)
        token = self.token(aws, node())
        assert aws.answer(node(), get("/latest/user-data", x_aws_ec2_metadata_token=token), NOW).body.startswith("#!")
        document = get("/latest/dynamic/instance-identity/document", x_aws_ec2_metadata_token=token)
        assert json.loads(aws.answer(node(), document, NOW).body)["accountId"] == "acct"


class TestGcp:
    def ask(self, path: str, *, notice: SandboxNotice | None = None) -> str:
        asked = get(f"/computeMetadata/v1/instance/{path}", metadata_flavor="Google")
        answer = GcpMetadata(SIGNERS).answer(node("gcp", notice=notice), asked, NOW)
        assert ("Metadata-Flavor", "Google") in answer.headers
        return answer.body if answer.status == 200 else str(answer.status)

    def test_the_flavor_header_is_required(self) -> None:
        plain = get("/computeMetadata/v1/instance/name")
        assert GcpMetadata(SIGNERS).answer(node("gcp"), plain, NOW).status == 403

    def test_leaves(self) -> None:
        assert self.ask("name") == "n1"
        assert self.ask("zone") == "projects/acct/zones/r1a"
        assert self.ask("attributes/user-data") == "#!/bin/sh\ntrue\n"
        assert self.ask("attributes/nothing") == "404"

    def test_an_identity_token_needs_an_audience(self) -> None:
        assert self.ask("service-accounts/default/identity") == "400"

    def test_preempted_turns_true_with_the_notice(self) -> None:
        assert self.ask("preempted") == "FALSE"
        assert self.ask("preempted", notice=NOTICE) == "TRUE"


class TestAzure:
    def ask(self, path: str, *, notice: SandboxNotice | None = None) -> str:
        asked = get(path, query={"api-version": "2021-02-01"}, metadata="true")
        answer = AzureMetadata(SIGNERS).answer(node("azure", notice=notice), asked, NOW)
        assert answer.status == 200
        return answer.body

    def test_header_and_version_are_required(self) -> None:
        azure = AzureMetadata(SIGNERS)
        version = {"api-version": "2021-02-01"}
        assert azure.answer(node("azure"), get("/metadata/instance", query=version), NOW).status == 400
        assert azure.answer(node("azure"), get("/metadata/instance", metadata="true"), NOW).status == 400
        unknown = get("/metadata/secrets", query=version, metadata="true")
        assert azure.answer(node("azure"), unknown, NOW).status == 404

    @pytest.mark.parametrize("nonce", ["12345678901", "x", "-1"])
    def test_a_nonce_is_ten_digits_at_most(self, nonce: str) -> None:
        asked = get("/metadata/attested/document", query={"api-version": "2020-09-01", "nonce": nonce}, metadata="true")
        assert AzureMetadata(SIGNERS).answer(node("azure"), asked, NOW).status == 400

    def test_the_instance_document(self) -> None:
        compute = json.loads(self.ask("/metadata/instance"))["compute"]
        assert (compute["name"], compute["location"], compute["priority"]) == ("n1", "r1", "Spot")
        assert b64decode(compute["userData"]).decode() == "#!/bin/sh\ntrue\n"

    def test_a_reclaim_is_a_preempt_event(self) -> None:
        assert json.loads(self.ask("/metadata/scheduledevents"))["Events"] == []
        (event,) = json.loads(self.ask("/metadata/scheduledevents", notice=NOTICE))["Events"]
        assert (event["EventType"], event["Resources"]) == ("Preempt", ["n1"])
        assert parsedate_to_datetime(event["NotBefore"]) == NOTICE.at


def test_a_network_answers_notices_in_the_words_of_the_contract() -> None:
    network = NetworkMetadata()
    assert NOTICES.validate_json(network.answer(node("network"), get("/notices"), NOW).body) == []
    told = network.answer(node("network", notice=NOTICE), get("/notices"), NOW)
    assert NOTICES.validate_json(told.body) == [NOTICE]
    assert network.answer(node("network"), get("/passwords"), NOW).status == 404
    assert network.answer(node("network"), get("/notices", method="POST"), NOW).status == 405


def test_every_kind_of_provider_has_an_answerer() -> None:
    assert set(answerers(SIGNERS)) == {"aws", "gcp", "azure", "network"}
