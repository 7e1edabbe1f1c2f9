"""One model of what the policies found, and its renderings: table, JSON, SARIF 2.1.0, JUnit."""

import json
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any
from xml.etree import ElementTree

from engine.model.value import Value
from policies.extraction import ingress_facts, instance_facts
from policies.rules import (
    FLEET_RULES,
    INGRESS_RULES,
    INSTANCE_RULES,
    PACK,
    Elsewhere,
    FleetFacts,
    Level,
    Limits,
    Rule,
    Severity,
    judged,
)
from stacks.base import PolicyFinding

SCHEMA_VERSION = 1
PACK_VERSION = "0.1.0"
_SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_SARIF_LEVEL = {Level.MANDATORY: "error", Level.ADVISORY: "warning"}
_SECURITY_SEVERITY = {Severity.LOW: "3.0", Severity.MEDIUM: "5.0", Severity.HIGH: "8.0", Severity.CRITICAL: "9.5"}


class Finding(Value):
    rule: str
    level: Level
    severity: Severity
    resource: str
    """URN; empty for a finding about the whole stack."""
    message: str
    """Ends with the fix."""

    @property
    def fingerprint(self) -> str:
        """Stable over runs, so that a tool can tell a known finding from a new one."""
        return sha256(f"{PACK}\0{self.rule}\0{self.resource}".encode()).hexdigest()


class Check(Value):
    """A rule that was judged for a resource, whatever came of it."""

    rule: str
    resource: str


class Findings(Value):
    """``checks`` lists what was judged, so that passes are visible too."""

    schema_version: int = SCHEMA_VERSION
    pack: str = PACK
    pack_version: str = PACK_VERSION
    findings: tuple[Finding, ...] = ()
    checks: tuple[Check, ...] = ()

    @property
    def blocked(self) -> bool:
        return any(finding.level is Level.MANDATORY for finding in self.findings)


class _RuleFacts(Value):
    level: Level
    severity: Severity
    description: str
    fix: str


def _described(rule: Rule[Any]) -> _RuleFacts:
    return _RuleFacts(level=rule.level, severity=rule.severity, description=rule.description, fix=rule.fix)


_RULES = {
    **{rule.id: _described(rule) for rule in INSTANCE_RULES},
    **{rule.id: _described(rule) for rule in INGRESS_RULES},
    **{rule.id: _described(rule) for rule in FLEET_RULES},
}


def from_engine(found: Iterable[PolicyFinding]) -> Findings:
    """What the engine reported during an update or a preview (it reports no passes)."""
    findings = [
        Finding(
            rule=one.policy,
            level=Level.MANDATORY if one.level == Level.MANDATORY.value else Level.ADVISORY,
            severity=_RULES[one.policy].severity if one.policy in _RULES else Severity.MEDIUM,
            resource=one.urn,
            message=one.message,
        )
        for one in found
    ]
    checks = [Check(rule=finding.rule, resource=finding.resource) for finding in findings]
    return Findings(findings=tuple(findings), checks=tuple(dict.fromkeys(checks)))


def review(deployment: Mapping[str, Any], limits: Limits, elsewhere: Elsewhere | None = None) -> Findings:
    """Judges a stack's exported state (its ``deployment``) without engine or provider."""
    resources = [one for one in deployment.get("resources") or [] if one.get("inputs")]
    collected = _Collector(limits)
    instances = []
    for resource in resources:
        type_, urn = resource["type"], resource["urn"]
        name = urn.rpartition("::")[2]
        instance = instance_facts(type_, name, resource["inputs"])
        if instance is not None:
            instances.append(instance)
            for rule in INSTANCE_RULES:
                collected.add(rule, urn, judged(rule, instance, limits))
        for ingress in ingress_facts(type_, name, resource["inputs"]):
            for ingress_rule in INGRESS_RULES:
                collected.add(ingress_rule, urn, judged(ingress_rule, ingress, limits))
    fleet = FleetFacts(instances=tuple(instances), elsewhere=elsewhere or Elsewhere())
    for fleet_rule in FLEET_RULES:
        collected.add(fleet_rule, "", judged(fleet_rule, fleet, limits))
    return Findings(findings=tuple(collected.findings), checks=tuple(dict.fromkeys(collected.checks)))


class _Collector:
    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.findings: list[Finding] = []
        self.checks: list[Check] = []

    def add(self, rule: Rule[Any], resource: str, messages: Sequence[str]) -> None:
        self.checks.append(Check(rule=rule.id, resource=resource))
        self.findings.extend(
            Finding(rule=rule.id, level=rule.level, severity=rule.severity, resource=resource, message=message)
            for message in messages
        )


def to_json(found: Findings) -> str:
    return found.model_dump_json(indent=2)


def to_rows(found: Findings) -> list[tuple[str, str, str, str]]:
    """(level, rule, resource, message): the rows of a table, mandatory ones first."""
    ordered = sorted(found.findings, key=lambda one: (one.level is not Level.MANDATORY, one.rule, one.resource))
    return [(one.level.value, one.rule, one.resource.rpartition("::")[2] or "stack", one.message) for one in ordered]


def to_sarif(found: Findings) -> str:
    """SARIF 2.1.0; a clean run has an empty list of results, never null."""
    used = sorted({check.rule for check in found.checks} | {finding.rule for finding in found.findings})
    driver = {
        "name": found.pack,
        "version": found.pack_version,
        "rules": [_sarif_rule(rule) for rule in used],
    }
    results = [_sarif_result(finding, used.index(finding.rule)) for finding in found.findings]
    run = {"tool": {"driver": driver}, "results": results, "columnKind": "utf16CodeUnits"}
    return json.dumps({"$schema": _SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2)


def _sarif_rule(rule: str) -> dict[str, Any]:
    known = _RULES.get(rule)
    if known is None:
        return {"id": rule}
    return {
        "id": rule,
        "shortDescription": {"text": known.description},
        "help": {"text": known.fix},
        "defaultConfiguration": {"level": _SARIF_LEVEL[known.level]},
        "properties": {"security-severity": _SECURITY_SEVERITY[known.severity]},
    }


def _sarif_result(finding: Finding, index: int) -> dict[str, Any]:
    where = finding.resource or "stack"
    return {
        "ruleId": finding.rule,
        "ruleIndex": index,
        "level": _SARIF_LEVEL[finding.level],
        "message": {"text": finding.message},
        "locations": [{"logicalLocations": [{"fullyQualifiedName": where, "kind": "resource"}]}],
        "partialFingerprints": {"packPolicyResource/v1": finding.fingerprint},
    }


def to_junit(found: Findings) -> str:
    """One test case for each rule and resource; a mandatory finding fails it, an advisory one is told in its output."""
    by_check: dict[tuple[str, str], list[Finding]] = {}
    for check in found.checks:
        by_check.setdefault((check.rule, check.resource), [])
    for finding in found.findings:
        by_check.setdefault((finding.rule, finding.resource), []).append(finding)
    failures = sum(any(f.level is Level.MANDATORY for f in here) for here in by_check.values())
    counts = {"tests": str(len(by_check)), "failures": str(failures), "errors": "0", "skipped": "0"}
    root = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(root, "testsuite", {"name": found.pack, **counts})
    for (rule, resource), here in by_check.items():
        case = ElementTree.SubElement(suite, "testcase", {"classname": rule, "name": resource or "stack"})
        text = "\n".join(finding.message for finding in here)
        if any(finding.level is Level.MANDATORY for finding in here):
            ElementTree.SubElement(case, "failure", {"message": here[0].message}).text = text
        elif here:
            ElementTree.SubElement(case, "system-out").text = text
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True)
