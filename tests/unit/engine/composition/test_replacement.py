from datetime import timedelta

from engine.composition.replacement import lost_nodes, replicas_to_renew, replicas_to_replace
from engine.model.composite import CompositeRule, HealthState, ShardHealth
from engine.model.ids import NodeId, ShardId
from engine.model.placement import Binding, Shard, ShardState
from tests.unit.engine.composition.cases import API, NOW, WEB, bound, health, shard

RULES = {API: CompositeRule(replicas=3, replace_after=timedelta(minutes=1))}
LONG_AGO = NOW - timedelta(days=1)
THREE = [bound(0, "a"), bound(1, "b"), bound(2, "c")]


def ill(name: str, seconds: float) -> ShardHealth:
    return health(name, HealthState.UNHEALTHY, since=seconds)


def replaced(*known: ShardHealth) -> list[str]:
    found = replicas_to_replace(THREE, {one.shard: one for one in known}, RULES, now=NOW, listening_since=LONG_AGO)
    return [one.shard for one in found]


def test_the_one_that_is_ill_for_too_long_is_replaced() -> None:
    assert replaced(ill("b", 61)) == ["b"]
    assert replaced(ill("b", 59)) == []
    assert replaced(health("b")) == []


def test_when_most_of_them_look_ill_nobody_is_replaced() -> None:
    assert replaced(ill("a", 100), ill("b", 100)) == []
    assert replaced(ill("a", 100), ill("b", 1)) == []


def test_of_two_the_ill_one_is_replaced() -> None:
    known = {one.shard: one for one in (ill("a", 70), health("b"))}
    found = replicas_to_replace([bound(0, "a"), bound(1, "b")], known, RULES, now=NOW, listening_since=LONG_AGO)
    assert [one.shard for one in found] == ["a"]


def test_one_of_a_component_at_a_time() -> None:
    five = [bound(index, name) for index, name in enumerate("abcde")]
    known = {one.shard: one for one in (ill("a", 70), ill("c", 90))}
    assert [one.shard for one in replicas_to_replace(five, known, RULES, now=NOW, listening_since=LONG_AGO)] == ["c"]


def test_nothing_is_replaced_unless_the_component_says_so_nor_its_last_replica() -> None:
    known = {one.shard: one for one in (ill("a", 1000),)}
    assert replicas_to_replace(THREE, known, {API: CompositeRule(replicas=3)}, now=NOW, listening_since=LONG_AGO) == ()
    assert replicas_to_replace([bound(0, "a")], known, RULES, now=NOW, listening_since=LONG_AGO) == ()


def test_a_silent_node_is_lost_once_all_that_it_served_is_replaced() -> None:
    def lost(bindings: list[Binding], known: dict[ShardId, ShardHealth]) -> frozenset[NodeId]:
        return lost_nodes(bindings, known, RULES, now=NOW, listening_since=LONG_AGO)

    silent = health("b", reported=100, node="n2")
    known = {one.shard: one for one in (silent, health("a"), health("c"))}
    assert lost(THREE, known) == {"n2"}
    also = known | {health("c").shard: health("c", reported=100, node="n2")}
    assert lost([*THREE, bound(3, "d"), bound(4, "e")], also) == frozenset()
    assert lost(THREE, known | {ill("b", 100).shard: ill("b", 100)}) == frozenset()


def test_a_control_plane_that_was_away_takes_nobody_for_silent() -> None:
    """The first node that reports again must not make the others look lost."""
    known = {one.shard: one for one in (health("a"), health("b"), health("c", reported=5000, node="n3"))}
    started = NOW - timedelta(seconds=20)
    assert replicas_to_replace(THREE, known, RULES, now=NOW, listening_since=started) == ()
    assert lost_nodes(THREE, known, RULES, now=NOW, listening_since=started) == frozenset()


def test_replicas_of_a_former_type_give_way_where_their_nodes_leave_first_and_never_where_they_are_taken_back() -> None:
    former = [shard(name, f"n-{name}", ShardState.BOUND) for name in "abc"]
    large = {"shard_type": "cpu.large"}
    ready = shard("new", "n9").model_copy(update=large)
    carving = shard("later", "n9", ShardState.HELD).model_copy(update=large)

    def renewed(spares: list[Shard], **nodes: str) -> list[str]:
        leaving = {state: frozenset({NodeId(node)}) for state, node in nodes.items()}
        found = replicas_to_renew(
            THREE, [*former, *spares], {WEB: "cpu.large"}, {WEB: 3},
            going=leaving.get("going", frozenset()) | leaving.get("ending", frozenset()),
            ending=leaving.get("ending", frozenset()),
        )  # fmt: skip
        return [one.shard for one in found]

    assert renewed([carving]) == []
    assert renewed([ready, carving]) == ["a"]
    assert renewed([ready], going="n-c") == ["c"]
    assert renewed([ready], ending="n-a") == ["b"]
    small = replicas_to_renew(THREE, [*former, ready], {WEB: "cpu.small"}, {WEB: 3}, going=(), ending=())
    assert small == ()
