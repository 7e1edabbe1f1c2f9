from datetime import timedelta

from engine.composition.membership import SILENT_AFTER, bad_for, is_well, standings
from engine.model.composite import HealthState, ShardHealth
from engine.model.ids import ShardId
from tests.unit.engine.composition.cases import NOW, bound, health, replica

LONG = SILENT_AFTER.total_seconds() + 1


def serving(*known: ShardHealth, **options: bool) -> list[bool]:
    bindings = [bound(0, "a"), bound(1, "b"), bound(2, "c", draining=options.get("draining", False))]
    found = standings(bindings, {one.shard: one for one in known}, {}, now=NOW)
    return [found[replica(index)].serves for index in range(3)]


def test_a_replica_that_nobody_checks_serves() -> None:
    assert serving() == [True, True, True]


def test_unhealthy_silent_and_draining_replicas_are_not_in_the_name() -> None:
    assert serving(health("a", HealthState.UNHEALTHY), health("b", reported=LONG)) == [False, False, True]
    assert serving(draining=True) == [True, True, False]


def test_where_nobody_is_well_all_are_told_but_those_that_are_drained() -> None:
    ill = [health(name, HealthState.UNHEALTHY) for name in "abc"]
    assert serving(*ill) == [True, True, True]
    assert serving(*ill, draining=True) == [True, True, False]


def test_each_standing_says_why() -> None:
    bindings = [bound(0, "a"), bound(1, "b"), bound(2, "c", draining=True)]
    known = {ShardId("a"): health("a", HealthState.UNHEALTHY), ShardId("b"): health("b", reported=0)}
    found = standings(bindings, known, {}, now=NOW)
    assert found[replica(0)].reason == "port 7000 is closed"
    assert found[replica(1)].health is HealthState.HEALTHY
    assert found[replica(2)].reason == "drained until 12:00:10 UTC"


def test_a_replica_whose_storage_is_ill_is_ill() -> None:
    known = {ShardId("disk"): health("disk", reported=LONG, node="n9"), ShardId("a"): health("a")}
    bindings = [bound(0, "a"), bound(1, "b")]
    found = standings(bindings, known, {replica(0): ShardId("disk")}, now=NOW)
    assert not found[replica(0)].serves
    assert found[replica(0)].reason == "its storage disk is silent: node n9 has said nothing for 31 s"
    assert found[replica(1)].serves


def test_how_long_a_shard_has_been_bad() -> None:
    always = NOW - timedelta(days=1)
    assert bad_for(None, NOW, always) == bad_for(health("a", since=500), NOW, always) == timedelta(0)
    assert bad_for(health("a", HealthState.UNHEALTHY, since=90), NOW, always) == timedelta(seconds=90)
    assert bad_for(health("a", since=500, reported=LONG), NOW, always) == timedelta(seconds=LONG)
    assert bad_for(health("a", HealthState.UNHEALTHY, since=500, reported=LONG), NOW, always) == timedelta(seconds=500)
    just_now = NOW - timedelta(seconds=5)
    assert bad_for(health("a", since=5000, reported=5000), NOW, just_now) == timedelta(seconds=5)
    assert bad_for(health("a", HealthState.UNHEALTHY, since=90), NOW, just_now) == timedelta(seconds=90)
    assert not is_well(health("a", HealthState.UNHEALTHY), NOW)
    assert is_well(None, NOW)
