from decimal import Decimal

import pytest

from policies.rules import (
    FLEET_RULES,
    INGRESS_RULES,
    INSTANCE_RULES,
    Elsewhere,
    FleetFacts,
    IngressFacts,
    InstanceFacts,
    Limits,
    family_allowed,
    judged,
    region_allowed,
)

TAGS = {"shardwright-node": "n1", "shardwright-token": "t", "shardwright-cell": "c"}
GOOD = InstanceFacts(
    name="n1",
    region="eu-west-1",
    instance_type="m7i.large",
    tags=TAGS,
    disk_encrypted=True,
    metadata_needs_session=True,
    password_login=False,
)
LIMITS = Limits(regions=("eu-west-1",), instance_families=("m7i", "e2-*"))


def broken(facts: InstanceFacts, limits: Limits = LIMITS) -> list[str]:
    return [rule.id for rule in INSTANCE_RULES if judged(rule, facts, limits)]


def fleet(rule_id: str, facts: FleetFacts, limits: Limits) -> tuple[str, ...]:
    return judged(next(rule for rule in FLEET_RULES if rule.id == rule_id), facts, limits)


def nodes(count: int, *, spot: int = 0, price: str = "0.10") -> tuple[InstanceFacts, ...]:
    return tuple(
        InstanceFacts(
            name=f"n{i}",
            tags={"shardwright-option": "spot" if i < spot else "on_demand", "shardwright-hourly-price": price},
        )
        for i in range(count)
    )


def test_a_good_instance_breaks_nothing() -> None:
    assert broken(GOOD) == []


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"region": "us-east-1"}, "allowed-regions"),
        ({"instance_type": "c7i.large"}, "allowed-instance-families"),
        ({"tags": {**TAGS, "shardwright-token": ""}}, "required-tags"),
        ({"disk_encrypted": False}, "encrypted-disks"),
        ({"metadata_needs_session": False}, "metadata-session"),
        ({"password_login": True}, "no-password-login"),
    ],
)
def test_each_rule_is_broken_by_its_own_fact_alone(change: dict[str, object], rule: str) -> None:
    assert broken(GOOD.model_copy(update=change)) == [rule]


def test_what_is_not_known_is_not_judged() -> None:
    assert broken(InstanceFacts(name="n1")) == []


def test_messages_name_the_fact_and_end_with_the_fix() -> None:
    (message,) = judged(INSTANCE_RULES[0], GOOD.model_copy(update={"region": "us-east-1"}), LIMITS)
    assert message == "region us-east-1 is not one of eu-west-1; use another region"


@pytest.mark.parametrize(
    ("first", "last", "source", "allowed"),
    [
        (22, 22, "0.0.0.0/0", False),
        (0, 65535, "::/0", False),
        (3380, 3390, "*", False),
        (1, 1024, "Internet", False),
        (22, 22, "10.0.0.0/8", True),
        (443, 443, "0.0.0.0/0", True),
        (23, 3388, "0.0.0.0/0", True),
    ],
)
def test_admin_ports_are_closed_to_the_internet(first: int, last: int, source: str, allowed: bool) -> None:
    facts = IngressFacts(name="sg", first_port=first, last_port=last, sources=("192.168.0.0/16", source))
    assert (judged(INGRESS_RULES[0], facts, Limits()) == ()) is allowed


def test_spot_share_counts_the_whole_plan() -> None:
    limits = Limits(max_spot_share=0.5)
    assert fleet("spot-share", FleetFacts(instances=nodes(2, spot=2)), limits) != ()
    balanced = FleetFacts(instances=nodes(2, spot=2), elsewhere=Elsewhere(nodes=2))
    assert fleet("spot-share", balanced, limits) == ()
    tipped = FleetFacts(instances=nodes(2, spot=2), elsewhere=Elsewhere(nodes=3, spot_nodes=1))
    assert "3 of 5" in fleet("spot-share", tipped, limits)[0]


def test_one_node_is_never_too_much_of_a_provider() -> None:
    limits = Limits(max_provider_share=0.4)
    assert fleet("provider-share", FleetFacts(instances=nodes(1)), limits) == ()
    assert fleet("provider-share", FleetFacts(instances=nodes(2), elsewhere=Elsewhere(nodes=3)), limits) == ()
    same = Elsewhere(nodes=3, same_provider_nodes=1)
    assert fleet("provider-share", FleetFacts(instances=nodes(2), elsewhere=same), limits) != ()


def test_the_budget_is_exact_money() -> None:
    limits = Limits(hourly_budget=Decimal("0.30"))
    assert fleet("hourly-budget", FleetFacts(instances=nodes(3)), limits) == ()
    above = FleetFacts(instances=nodes(3), elsewhere=Elsewhere(hourly_cost=Decimal("0.0001")))
    assert "0.3001 USD" in fleet("hourly-budget", above, limits)[0]
    assert fleet("hourly-budget", above, Limits()) == ()


def test_allowed_lists_that_are_empty_allow_all() -> None:
    assert region_allowed("anywhere", ())
    assert family_allowed("x", ())
    assert family_allowed("e2-small", ("e2-*",))
    assert not family_allowed("n2-small", ("e2-*",))
