"""Facts out of declared resources: one place that knows the property names of the providers' resource types."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from policies.rules import IngressFacts, InstanceFacts

UNKNOWN = object()
"""Stands for a value that a preview does not know yet."""
Properties = Mapping[str, Any]
_ALL_PORTS = (0, 65535)


def instance_facts(type_: str, name: str, properties: Properties) -> InstanceFacts | None:
    """None where the resource is no instance."""
    read = _INSTANCES.get(type_)
    return None if read is None else read(name, properties)


def ingress_facts(type_: str, name: str, properties: Properties) -> tuple[IngressFacts, ...]:
    """Every inbound rule that the resource declares and that is known."""
    read = _INGRESS.get(type_)
    return () if read is None else tuple(read(name, properties))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _at(properties: Any, *path: str) -> Any:
    """The value at a path: None where there is none, UNKNOWN where it or what holds it is not known."""
    for key in path:
        if properties is UNKNOWN:
            return UNKNOWN
        if not isinstance(properties, Mapping):
            return None
        properties = properties.get(key)
    return properties


def _tags(*found: Any) -> dict[str, str] | None:
    if any(tags is UNKNOWN for tags in found):
        return None
    merged = {key: value for tags in found if isinstance(tags, Mapping) for key, value in tags.items()}
    return {key: value for key, value in merged.items() if isinstance(value, str)}


def _flag(value: Any, *, missing: bool) -> bool | None:
    """None while it is not known."""
    if value is UNKNOWN:
        return None
    return missing if value is None else bool(value)


def _aws(name: str, properties: Properties) -> InstanceFacts:
    zone = _text(_at(properties, "availabilityZone"))
    tokens = _at(properties, "metadataOptions", "httpTokens")
    disks = [_at(properties, "rootBlockDevice"), *_items(_at(properties, "ebsBlockDevices"))]
    encrypted = [_flag(_at(disk, "encrypted"), missing=False) for disk in disks]
    return InstanceFacts(
        name=name,
        region=zone.rstrip("abcdefghijklmnop") if zone else None,
        instance_type=_text(_at(properties, "instanceType")),
        tags=_tags(_at(properties, "tags")),
        disk_encrypted=False if False in encrypted else None if None in encrypted else True,
        metadata_needs_session=None if tokens is UNKNOWN else tokens == "required",
    )


def _gcp(name: str, properties: Properties) -> InstanceFacts:
    """Google Cloud encrypts every disk, and its metadata always asks for a header."""
    zone = _text(_at(properties, "zone"))
    machine_type = _text(_at(properties, "machineType"))
    return InstanceFacts(
        name=name,
        region=zone.rpartition("/")[2].rpartition("-")[0] if zone else None,
        instance_type=machine_type.rpartition("/")[2] if machine_type else None,
        tags=_tags(_at(properties, "labels"), _at(properties, "metadata")),
        disk_encrypted=True,
    )


def _azure(name: str, properties: Properties) -> InstanceFacts:
    """Azure encrypts every managed disk; a disk in a storage account (``vhd``) is one that it may not."""
    disk = _at(properties, "storageProfile", "osDisk")
    linux = _at(properties, "osProfile", "linuxConfiguration")
    no_password = _flag(_at(linux, "disablePasswordAuthentication"), missing=False)
    return InstanceFacts(
        name=name,
        region=_text(_at(properties, "location")),
        instance_type=_text(_at(properties, "hardwareProfile", "vmSize")),
        tags=_tags(_at(properties, "tags")),
        disk_encrypted=None if disk is UNKNOWN else _at(disk, "vhd") is None,
        password_login=None if no_password is None or _at(properties, "osProfile") is None else not no_password,
    )


def _shardnet(name: str, properties: Properties) -> InstanceFacts:
    return InstanceFacts(
        name=name,
        region=_text(_at(properties, "region")),
        instance_type=_text(_at(properties, "instanceType")),
        tags=_tags(_at(properties, "tags")),
    )


def _items(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()


def _number(value: Any, missing: int) -> int:
    return int(value) if isinstance(value, int | float) else missing


def _texts(*found: Any) -> tuple[str, ...]:
    return tuple(text for values in found for text in _items(values) if isinstance(text, str))


def _aws_rule(name: str, rule: Any) -> IngressFacts:
    first, last = _number(_at(rule, "fromPort"), 0), _number(_at(rule, "toPort"), 65535)
    if str(_at(rule, "protocol") or _at(rule, "ipProtocol")) in ("-1", "all"):
        first, last = _ALL_PORTS
    single = [_at(rule, "cidrIpv4"), _at(rule, "cidrIpv6")]
    sources = _texts(_at(rule, "cidrBlocks"), _at(rule, "ipv6CidrBlocks"), single)
    return IngressFacts(name=name, first_port=first, last_port=last, sources=sources)


def _aws_group(name: str, properties: Properties) -> Iterator[IngressFacts]:
    for rule in _items(_at(properties, "ingress")):
        yield _aws_rule(name, rule)


def _aws_group_rule(name: str, properties: Properties) -> Iterator[IngressFacts]:
    if _at(properties, "type") in (None, "ingress"):
        yield _aws_rule(name, properties)


def _gcp_firewall(name: str, properties: Properties) -> Iterator[IngressFacts]:
    if _at(properties, "direction") == "EGRESS":
        return
    ranges = _at(properties, "sourceRanges")
    tied = _items(_at(properties, "sourceTags")) or _items(_at(properties, "sourceServiceAccounts"))
    sources = _texts(ranges) if ranges is not None or tied else ("0.0.0.0/0",)
    for allowed in _items(_at(properties, "allows")):
        ports = _texts(_at(allowed, "ports")) or ("0-65535",)
        for port in ports:
            first, _, last = port.partition("-")
            yield IngressFacts(name=name, first_port=int(first), last_port=int(last or first), sources=sources)


def _azure_group(name: str, properties: Properties) -> Iterator[IngressFacts]:
    for rule in _items(_at(properties, "securityRules")):
        yield from _azure_rule(name, rule)


def _azure_rule(name: str, rule: Any) -> Iterator[IngressFacts]:
    if _at(rule, "direction") == "Outbound" or _at(rule, "access") == "Deny":
        return
    sources = _texts([_at(rule, "sourceAddressPrefix")], _at(rule, "sourceAddressPrefixes"))
    ranges = _texts([_at(rule, "destinationPortRange")], _at(rule, "destinationPortRanges"))
    for ports in ranges:
        first, _, last = ("0-65535" if ports == "*" else ports).partition("-")
        yield IngressFacts(name=name, first_port=int(first), last_port=int(last or first), sources=sources)


_INSTANCES: dict[str, Callable[[str, Properties], InstanceFacts]] = {
    "aws:ec2/instance:Instance": _aws,
    "gcp:compute/instance:Instance": _gcp,
    "azure-native:compute:VirtualMachine": _azure,
    "shardnet:index:Reservation": _shardnet,
}
_INGRESS: dict[str, Callable[[str, Properties], Iterator[IngressFacts]]] = {
    "aws:ec2/securityGroup:SecurityGroup": _aws_group,
    "aws:ec2/securityGroupRule:SecurityGroupRule": _aws_group_rule,
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule": _aws_group_rule,
    "gcp:compute/firewall:Firewall": _gcp_firewall,
    "azure-native:network:NetworkSecurityGroup": _azure_group,
    "azure-native:network:SecurityRule": _azure_rule,
}
