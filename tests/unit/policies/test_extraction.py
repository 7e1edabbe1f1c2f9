import pytest

from policies.extraction import UNKNOWN, ingress_facts, instance_facts

AWS = "aws:ec2/instance:Instance"


def test_other_resources_are_no_instances() -> None:
    assert instance_facts("aws:s3/bucket:Bucket", "b", {}) is None
    assert ingress_facts("aws:s3/bucket:Bucket", "b", {}) == ()


def test_aws() -> None:
    facts = instance_facts(
        AWS,
        "n1",
        {
            "availabilityZone": "us-east-1a",
            "instanceType": "m7i.large",
            "tags": {"a": "b"},
            "rootBlockDevice": {"encrypted": True},
            "ebsBlockDevices": [{"encrypted": True}],
            "metadataOptions": {"httpTokens": "required"},
        },
    )
    assert facts is not None
    assert (facts.region, facts.instance_type, facts.tags) == ("us-east-1", "m7i.large", {"a": "b"})
    assert facts.disk_encrypted
    assert facts.metadata_needs_session


def test_aws_defaults_are_the_unsafe_ones() -> None:
    facts = instance_facts(AWS, "n1", {})
    assert facts is not None
    assert facts.disk_encrypted is False
    assert facts.metadata_needs_session is False
    one_bad = {"rootBlockDevice": {"encrypted": True}, "ebsBlockDevices": [{"encrypted": False}]}
    assert instance_facts(AWS, "n1", one_bad).disk_encrypted is False  # type: ignore[union-attr]


def test_what_a_preview_does_not_know_is_left_open() -> None:
    facts = instance_facts(
        AWS,
        "n1",
        {
            "availabilityZone": UNKNOWN,
            "instanceType": UNKNOWN,
            "tags": UNKNOWN,
            "rootBlockDevice": UNKNOWN,
            "metadataOptions": {"httpTokens": UNKNOWN},
        },
    )
    assert facts is not None
    assert (facts.region, facts.instance_type, facts.tags) == (None, None, None)
    assert facts.disk_encrypted is None
    assert facts.metadata_needs_session is None
    assert ingress_facts("aws:ec2/securityGroup:SecurityGroup", "g", {"ingress": UNKNOWN}) == ()


def test_gcp_takes_exact_tags_from_metadata() -> None:
    facts = instance_facts(
        "gcp:compute/instance:Instance",
        "n1",
        {
            "zone": "us-central1-a",
            "machineType": "zones/us-central1-a/machineTypes/e2-small",
            "labels": {"shardwright-cell": "gcp-p-us"},
            "metadata": {"shardwright-cell": "gcp/p/us"},
        },
    )
    assert facts is not None
    assert (facts.region, facts.instance_type) == ("us-central1", "e2-small")
    assert facts.tags == {"shardwright-cell": "gcp/p/us"}


@pytest.mark.parametrize(("linux", "password"), [({"disablePasswordAuthentication": True}, False), ({}, True)])
def test_azure(linux: dict[str, object], password: bool) -> None:
    facts = instance_facts(
        "azure-native:compute:VirtualMachine",
        "n1",
        {
            "location": "eastus",
            "hardwareProfile": {"vmSize": "Standard_D2s_v5"},
            "osProfile": {"linuxConfiguration": linux},
            "storageProfile": {"osDisk": {"managedDisk": {}}},
        },
    )
    assert facts is not None
    assert (facts.region, facts.instance_type) == ("eastus", "Standard_D2s_v5")
    assert facts.password_login is password
    assert facts.disk_encrypted


def test_a_disk_in_an_azure_storage_account_is_not_taken_for_encrypted() -> None:
    properties = {"storageProfile": {"osDisk": {"vhd": {"uri": "x"}}}}
    facts = instance_facts("azure-native:compute:VirtualMachine", "n1", properties)
    assert facts is not None
    assert facts.disk_encrypted is False


@pytest.mark.parametrize(
    ("type_", "properties", "expected"),
    [
        (
            "aws:ec2/securityGroup:SecurityGroup",
            {"ingress": [{"protocol": "-1", "fromPort": 0, "toPort": 0, "cidrBlocks": ["0.0.0.0/0"]}]},
            (0, 65535, ("0.0.0.0/0",)),
        ),
        (
            "aws:ec2/securityGroup:SecurityGroup",
            {"ingress": [{"protocol": "tcp", "fromPort": 22.0, "toPort": 22.0, "ipv6CidrBlocks": ["::/0"]}]},
            (22, 22, ("::/0",)),
        ),
        (
            "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule",
            {"ipProtocol": "tcp", "fromPort": 22, "toPort": 22, "cidrIpv4": "0.0.0.0/0"},
            (22, 22, ("0.0.0.0/0",)),
        ),
        (
            "gcp:compute/firewall:Firewall",
            {"allows": [{"protocol": "tcp", "ports": ["20-30"]}]},
            (20, 30, ("0.0.0.0/0",)),
        ),
        (
            "gcp:compute/firewall:Firewall",
            {"allows": [{"protocol": "all"}], "sourceRanges": ["10.0.0.0/8"]},
            (0, 65535, ("10.0.0.0/8",)),
        ),
        (
            "azure-native:network:NetworkSecurityGroup",
            {"securityRules": [{"access": "Allow", "sourceAddressPrefix": "*", "destinationPortRange": "*"}]},
            (0, 65535, ("*",)),
        ),
        (
            "azure-native:network:SecurityRule",
            {"access": "Allow", "sourceAddressPrefixes": ["Internet"], "destinationPortRanges": ["22"]},
            (22, 22, ("Internet",)),
        ),
    ],
)
def test_ingress(type_: str, properties: dict[str, object], expected: tuple[int, int, tuple[str, ...]]) -> None:
    (facts,) = ingress_facts(type_, "rule", properties)
    assert (facts.first_port, facts.last_port, facts.sources) == expected


@pytest.mark.parametrize(
    ("type_", "properties"),
    [
        ("gcp:compute/firewall:Firewall", {"direction": "EGRESS", "allows": [{"protocol": "tcp"}]}),
        ("azure-native:network:SecurityRule", {"access": "Deny", "destinationPortRange": "22"}),
        ("azure-native:network:SecurityRule", {"direction": "Outbound", "destinationPortRange": "22"}),
        ("aws:ec2/securityGroupRule:SecurityGroupRule", {"type": "egress", "fromPort": 22, "toPort": 22}),
    ],
)
def test_what_is_not_inbound_is_left_out(type_: str, properties: dict[str, object]) -> None:
    assert ingress_facts(type_, "rule", properties) == ()
