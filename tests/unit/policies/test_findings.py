import json
from decimal import Decimal
from xml.etree import ElementTree

from policies.findings import Findings, from_engine, review, to_json, to_junit, to_rows, to_sarif
from policies.rules import Level, Limits
from stacks.base import PolicyFinding

URN = "urn:pulumi:s::shardwright::aws:ec2/instance:Instance::n1"
DEPLOYMENT = {
    "resources": [
        {"type": "pulumi:pulumi:Stack", "urn": "urn:pulumi:s::shardwright::pulumi:pulumi:Stack::s"},
        {
            "type": "aws:ec2/instance:Instance",
            "urn": URN,
            "inputs": {
                "availabilityZone": "us-east-1a",
                "instanceType": "m7i.large",
                "metadataOptions": {"httpTokens": "required"},
                "rootBlockDevice": {"encrypted": False},
                "tags": {"shardwright-node": "n1", "shardwright-token": "t", "shardwright-cell": "c"},
            },
        },
        {
            "type": "gcp:compute/firewall:Firewall",
            "urn": "urn:pulumi:s::shardwright::gcp:compute/firewall:Firewall::open",
            "inputs": {"allows": [{"protocol": "tcp", "ports": ["22"]}]},
        },
    ]
}


def reviewed() -> Findings:
    return review(DEPLOYMENT, Limits(max_provider_share=0.5, hourly_budget=Decimal(1)))


def test_a_state_is_reviewed_offline() -> None:
    found = reviewed()
    assert {(one.rule, one.resource.rpartition("::")[2]) for one in found.findings} == {
        ("encrypted-disks", "n1"),
        ("no-public-admin-ports", "open"),
    }
    assert found.blocked
    assert len(found.checks) == 6 + 1 + 3
    assert to_rows(found)[0] == (
        "mandatory",
        "encrypted-disks",
        "n1",
        "a disk is not encrypted; set the disk's encryption",
    )


def test_engine_findings_keep_their_level() -> None:
    advisory = PolicyFinding(policy="spot-share", pack="shardwright", level="advisory", urn="", message="m")
    found = from_engine([advisory, advisory.model_copy(update={"policy": "own", "level": "mandatory"})])
    assert [one.level for one in found.findings] == [Level.ADVISORY, Level.MANDATORY]
    assert found.blocked
    assert not from_engine([advisory]).blocked


def test_json_comes_back_unchanged() -> None:
    assert Findings.model_validate_json(to_json(reviewed())) == reviewed()


def test_sarif_names_rules_levels_and_stable_fingerprints() -> None:
    log = json.loads(to_sarif(reviewed()))
    assert log["version"] == "2.1.0"
    (run,) = log["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert [rules[result["ruleIndex"]]["id"] for result in run["results"]] == [r["ruleId"] for r in run["results"]]
    assert {result["level"] for result in run["results"]} == {"error"}
    assert run["results"][0]["locations"][0]["logicalLocations"][0]["fullyQualifiedName"] == URN
    prints = [result["partialFingerprints"]["packPolicyResource/v1"] for result in run["results"]]
    again = json.loads(to_sarif(reviewed()))["runs"][0]["results"]
    assert prints == [result["partialFingerprints"]["packPolicyResource/v1"] for result in again]
    assert len(set(prints)) == 2


def test_a_clean_run_is_an_empty_list_never_null() -> None:
    log = json.loads(to_sarif(Findings()))
    assert log["runs"][0]["results"] == []
    assert ElementTree.fromstring(to_junit(Findings())).get("tests") == "0"


def test_junit_shows_passes_and_fails_only_on_mandatory_findings() -> None:
    root = ElementTree.fromstring(to_junit(reviewed()))
    assert (root.get("tests"), root.get("failures")) == ("10", "2")
    failed = {case.get("classname") for case in root.iter("testcase") if case.find("failure") is not None}
    assert failed == {"encrypted-disks", "no-public-admin-ports"}
    advisory = PolicyFinding(policy="spot-share", pack="shardwright", level="advisory", urn="", message="too much")
    (case,) = ElementTree.fromstring(to_junit(from_engine([advisory]))).iter("testcase")
    assert case.find("failure") is None
    assert case.findtext("system-out") == "too much"
