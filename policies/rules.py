"""What may be declared: pure predicates on plain facts. The policy pack enforces them; plans are made to keep them.

A fact that is None is not known yet (a preview) or does not apply: nothing is judged, and the update judges again.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Annotated, Generic, TypeVar

from pydantic import Field

from engine.model.capacity import Probability
from engine.model.value import Value

PACK = "shardwright"
SPOT = "spot"
_PUBLIC = frozenset({"0.0.0.0/0", "::/0", "*", "internet", "any"})


class Level(StrEnum):
    ADVISORY = "advisory"
    MANDATORY = "mandatory"


class Severity(StrEnum):
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


class Limits(Value):
    """What the operator allows; the ``[policy]`` table of shardwright.toml."""

    regions: tuple[str, ...] = ()
    """Empty: any."""
    instance_families: tuple[str, ...] = ()
    """Prefixes or glob patterns of instance types (``m7i``, ``e2-*``); empty: any."""
    required_tags: tuple[str, ...] = ("shardwright-node", "shardwright-token", "shardwright-cell")
    admin_ports: tuple[int, ...] = (22, 3389)
    max_spot_share: Probability = 1.0
    max_provider_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    hourly_budget: Annotated[Decimal, Field(gt=0)] | None = None
    currency: str = "USD"


class Elsewhere(Value):
    """What the plan has outside the cell that is judged, so that shares and costs are those of the whole plan."""

    nodes: Annotated[int, Field(ge=0)] = 0
    spot_nodes: Annotated[int, Field(ge=0)] = 0
    same_provider_nodes: Annotated[int, Field(ge=0)] = 0
    hourly_cost: Annotated[Decimal, Field(ge=0)] = Decimal(0)
    leaving: tuple[str, ...] = ()
    """Names of nodes, of the judged cell too, that the plan gives back: they stay until they are empty, beside what
    replaces them, and their price is no part of what the plan costs."""


class InstanceFacts(Value):
    """One declared instance."""

    name: str
    region: str | None = None
    instance_type: str | None = None
    tags: dict[str, str] | None = None
    disk_encrypted: bool | None = None
    metadata_needs_session: bool | None = None
    """Whether instance metadata answers session tokens only (IMDSv2); None where the provider has no other way."""
    password_login: bool | None = None

    @property
    def spot(self) -> bool:
        return (self.tags or {}).get("shardwright-option") == SPOT

    @property
    def hourly_price(self) -> Decimal | None:
        text = (self.tags or {}).get("shardwright-hourly-price")
        return None if text is None else Decimal(text)


class IngressFacts(Value):
    """One inbound rule of a firewall or security group."""

    name: str
    first_port: int
    last_port: int
    sources: tuple[str, ...]

    @property
    def public(self) -> bool:
        return any(source.lower() in _PUBLIC for source in self.sources)


class FleetFacts(Value):
    """All instances of one cell, and the rest of the plan."""

    instances: tuple[InstanceFacts, ...]
    elsewhere: Elsewhere = Elsewhere()


Facts = TypeVar("Facts", InstanceFacts, IngressFacts, FleetFacts)


@dataclass(frozen=True)
class Rule(Generic[Facts]):
    """``judge``: what is wrong, in words; empty when nothing is. ``fix``: what to do about it."""

    id: str
    description: str
    level: Level
    severity: Severity
    judge: Callable[[Facts, Limits], Sequence[str]]
    fix: str


def family_allowed(instance_type: str, families: Iterable[str]) -> bool:
    wanted = tuple(families)
    return not wanted or any(instance_type.startswith(f) or fnmatchcase(instance_type, f) for f in wanted)


def region_allowed(region: str, regions: Sequence[str]) -> bool:
    return not regions or region in regions


def _region(facts: InstanceFacts, limits: Limits) -> Sequence[str]:
    if facts.region is None or region_allowed(facts.region, limits.regions):
        return ()
    return (f"region {facts.region} is not one of {', '.join(limits.regions)}",)


def _family(facts: InstanceFacts, limits: Limits) -> Sequence[str]:
    if facts.instance_type is None or family_allowed(facts.instance_type, limits.instance_families):
        return ()
    return (f"instance type {facts.instance_type} is not of {', '.join(limits.instance_families)}",)


def _tags(facts: InstanceFacts, limits: Limits) -> Sequence[str]:
    if facts.tags is None:
        return ()
    missing = [tag for tag in limits.required_tags if not facts.tags.get(tag)]
    return (f"required tags are missing: {', '.join(missing)}",) if missing else ()


def _disk(facts: InstanceFacts, limits: Limits) -> Sequence[str]:
    return ("a disk is not encrypted",) if facts.disk_encrypted is False else ()


def _metadata(facts: InstanceFacts, limits: Limits) -> Sequence[str]:
    return ("instance metadata answers without a session token",) if facts.metadata_needs_session is False else ()


def _password(facts: InstanceFacts, limits: Limits) -> Sequence[str]:
    return ("login with a password is possible",) if facts.password_login else ()


def _ingress(facts: IngressFacts, limits: Limits) -> Sequence[str]:
    opened = [port for port in limits.admin_ports if facts.first_port <= port <= facts.last_port]
    if not opened or not facts.public:
        return ()
    return (f"port {', '.join(map(str, opened))} is open to {', '.join(facts.sources)}",)


def _spot_share(facts: FleetFacts, limits: Limits) -> Sequence[str]:
    spot = sum(instance.spot for instance in facts.instances) + facts.elsewhere.spot_nodes
    total = len(facts.instances) + facts.elsewhere.nodes
    return _share_above("spot", spot, total, limits.max_spot_share, always=0)


def _provider_share(facts: FleetFacts, limits: Limits) -> Sequence[str]:
    here = len(facts.instances) + facts.elsewhere.same_provider_nodes
    total = len(facts.instances) + facts.elsewhere.nodes
    return _share_above("this provider's", here, total, limits.max_provider_share, always=1)


def _share_above(what: str, part: int, total: int, most: float, *, always: int) -> Sequence[str]:
    if part <= always or part <= most * total + 1e-9:
        return ()
    return (f"{part} of {total} nodes are {what}, above the cap of {most:.0%}",)


def _budget(facts: FleetFacts, limits: Limits) -> Sequence[str]:
    if limits.hourly_budget is None:
        return ()
    lasting = [instance for instance in facts.instances if instance.name not in facts.elsewhere.leaving]
    prices = [instance.hourly_price for instance in lasting]
    cost = sum((price for price in prices if price is not None), facts.elsewhere.hourly_cost)
    if cost <= limits.hourly_budget:
        return ()
    return (f"the plan costs {cost:f} {limits.currency} an hour, the budget is {limits.hourly_budget:f}",)


_M, _A, _S = Level.MANDATORY, Level.ADVISORY, Severity
INSTANCE_RULES: tuple[Rule[InstanceFacts], ...] = (
    Rule("allowed-regions", "Nodes live in allowed regions.", _M, _S.HIGH, _region, "use another region"),
    Rule("allowed-instance-families", "Only allowed instance types.", _M, _S.MEDIUM, _family, "use another type"),
    Rule("required-tags", "Every node carries the required tags.", _M, _S.MEDIUM, _tags, "add the tags"),
    Rule("encrypted-disks", "Disks are encrypted at rest.", _M, _S.HIGH, _disk, "set the disk's encryption"),
    Rule(
        "metadata-session", "Instance metadata asks for IMDSv2.", _M, _S.HIGH, _metadata, 'set http_tokens "required"'
    ),
    Rule("no-password-login", "No login with a password.", _M, _S.HIGH, _password, "disable password authentication"),
)
INGRESS_RULES: tuple[Rule[IngressFacts], ...] = (
    Rule(
        "no-public-admin-ports",
        "Administration ports are closed to the internet.",
        _M,
        _S.CRITICAL,
        _ingress,
        "narrow the source or drop the rule; nodes are reached through their agents",
    ),
)
FLEET_RULES: tuple[Rule[FleetFacts], ...] = (
    Rule("spot-share", "Spot nodes stay below their cap.", _A, _S.MEDIUM, _spot_share, "plan with more lasting nodes"),
    Rule("provider-share", "No provider has too much.", _A, _S.MEDIUM, _provider_share, "spread over more providers"),
    Rule("hourly-budget", "The plan keeps its hourly budget.", _M, _S.HIGH, _budget, "raise the budget or plan less"),
)


def judged(rule: Rule[Facts], facts: Facts, limits: Limits) -> tuple[str, ...]:
    """The rule's messages, each ending with the fix."""
    return tuple(f"{problem}; {rule.fix}" for problem in rule.judge(facts, limits))
