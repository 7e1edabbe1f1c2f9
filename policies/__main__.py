"""The CrossGuard pack: the rules of policies/rules.py, as Pulumi policies. Run by the engine, never imported."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pulumi_policy import (
    EnforcementLevel,
    Policy,
    PolicyConfigSchema,
    PolicyPack,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
    Severity,
    StackValidationArgs,
    StackValidationPolicy,
)
from pulumi_policy.proxy import UnknownValueError

from policies.extraction import UNKNOWN, ingress_facts, instance_facts
from policies.pack_config import read_config
from policies.rules import (
    FLEET_RULES,
    INGRESS_RULES,
    INSTANCE_RULES,
    PACK,
    FleetFacts,
    IngressFacts,
    InstanceFacts,
    Rule,
    judged,
)

_SCHEMA = PolicyConfigSchema(properties={"limits": {"type": "string"}, "elsewhere": {"type": "string"}})


def _known(properties: Any) -> Any:
    """Plain values, with UNKNOWN where the engine's proxies would refuse to answer."""
    if isinstance(properties, Mapping):
        return {key: _item(properties, key) for key in properties}
    if isinstance(properties, list | tuple):
        return [_item(properties, position) for position in range(len(properties))]
    return properties


def _item(holder: Any, key: Any) -> Any:
    try:
        return _known(holder[key])
    except UnknownValueError:
        return UNKNOWN


def _common(rule: Rule[Any]) -> dict[str, Any]:
    return {
        "name": rule.id,
        "description": rule.description,
        "enforcement_level": EnforcementLevel(rule.level.value),
        "severity": Severity(rule.severity.value),
        "config_schema": _SCHEMA,
        "remediation_steps": rule.fix,
    }


def _instance_policy(rule: Rule[InstanceFacts]) -> ResourceValidationPolicy:
    def validate(args: ResourceValidationArgs, report: ReportViolation) -> None:
        facts = instance_facts(args.resource_type, args.name, _known(args.props))
        if facts is not None:
            limits, _ = read_config(args.get_config())
            for message in judged(rule, facts, limits):
                report(message, None)

    return ResourceValidationPolicy(validate=validate, **_common(rule))


def _ingress_policy(rule: Rule[IngressFacts]) -> ResourceValidationPolicy:
    def validate(args: ResourceValidationArgs, report: ReportViolation) -> None:
        limits, _ = read_config(args.get_config())
        for facts in ingress_facts(args.resource_type, args.name, _known(args.props)):
            for message in judged(rule, facts, limits):
                report(message, None)

    return ResourceValidationPolicy(validate=validate, **_common(rule))


def _fleet_policy(rule: Rule[FleetFacts]) -> StackValidationPolicy:
    def validate(args: StackValidationArgs, report: ReportViolation) -> None:
        limits, elsewhere = read_config(args.get_config())
        found = [instance_facts(r.resource_type, r.name, _known(r.props)) for r in args.resources]
        facts = FleetFacts(instances=tuple(one for one in found if one is not None), elsewhere=elsewhere)
        for message in judged(rule, facts, limits):
            report(message, None)

    return StackValidationPolicy(validate=validate, **_common(rule))


def _policies() -> list[Policy]:
    return [
        *(_instance_policy(rule) for rule in INSTANCE_RULES),
        *(_ingress_policy(rule) for rule in INGRESS_RULES),
        *(_fleet_policy(rule) for rule in FLEET_RULES),
    ]


PolicyPack(PACK, policies=_policies(), enforcement_level=EnforcementLevel.ADVISORY)
