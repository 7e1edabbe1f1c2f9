from collections.abc import Mapping

from engine.composition.binding import BindPlan, plan_bindings
from engine.model.composite import CompositeRule
from engine.model.ids import NodeId, PoolId
from engine.model.placement import Binding, ComponentName, Shard, ShardState
from tests.unit.engine.composition.cases import API, WEB, bound, replica, shard

WORKER = ComponentName(namespace="shop", workload="web", component="worker")
PROVIDERS = {NodeId("a1"): "aws", NodeId("a2"): "aws", NodeId("g1"): "gcp", NodeId("z1"): "azure"}


def planned(
    shards: list[Shard],
    wanted: int,
    bindings: tuple[Binding, ...] = (),
    *,
    names: tuple[ComponentName, ...] = (API,),
    rules: Mapping[ComponentName, CompositeRule] | None = None,
) -> BindPlan:
    return plan_bindings({WEB: names}, {WEB: wanted}, shards, bindings, rules=rules or {}, providers=PROVIDERS)


def test_replicas_are_spread_over_nodes_and_the_rest_stays_ready() -> None:
    result = planned([shard("a", "a1"), shard("b", "a1"), shard("c", "a2")], 2)
    assert [(component.index, shard_id) for component, shard_id in result.bind] == [(0, "a"), (1, "c")]


def test_replicas_are_spread_over_providers_first() -> None:
    result = planned([shard("a", "a1"), shard("b", "a2"), shard("c", "g1"), shard("d", "z1"), shard("e", "g1")], 4)
    assert [shard_id for _, shard_id in result.bind] == ["a", "c", "d", "b"]


def test_a_component_that_is_crowded_at_one_provider_is_told_of_and_served_all_the_same() -> None:
    rule = {API: CompositeRule(replicas=3, max_provider_share=0.34)}
    result = planned([shard("a", "a1"), shard("b", "a2"), shard("c", "g1")], 1, rules=rule)
    assert len(result.bind) == 3
    assert result.crowded == ("shard://shop/web/api: 2 with aws of 3 replicas, above the 1 that its rule allows",)
    enough = planned([shard("a", "a1"), shard("b", "z1"), shard("c", "g1")], 1, rules=rule)
    assert (len(enough.bind), enough.crowded) == (3, ())


def test_what_is_bound_stays_and_what_is_too_much_is_drained() -> None:
    shards = [shard("a", "a1", ShardState.BOUND), shard("b", "a1", ShardState.BOUND)]
    assert planned(shards, 2, (bound(0, "a"), bound(1, "b"))).bind == ()
    fewer = planned(shards, 1, (bound(0, "a"), bound(1, "b")))
    assert (fewer.bind, fewer.drain) == ((), (replica(1),))


def test_a_replica_that_is_being_drained_is_no_place_for_another_until_it_is_gone() -> None:
    shards = [shard("a", "a1", ShardState.BOUND), shard("b", "a1", ShardState.DRAINING)]
    result = planned(shards, 1, (bound(0, "a"), bound(1, "b", draining=True)), names=(API,))
    assert (result.bind, result.drain, result.keep) == ((), (), ())


def test_a_replica_that_is_wanted_again_comes_back_instead_of_a_new_one() -> None:
    shards = [shard("a", "a1", ShardState.BOUND), shard("b", "a1", ShardState.DRAINING), shard("c", "g1")]
    result = planned(shards, 2, (bound(0, "a"), bound(1, "b", draining=True)))
    assert (result.bind, result.drain, result.keep) == ((), (), (replica(1),))


def test_several_components_of_one_pool_share_it() -> None:
    result = planned([shard("a", "a1"), shard("b", "g1")], 3, names=(API, WORKER))
    assert [str(component) for component, _ in result.bind] == ["shard://shop/web/api/0", "shard://shop/web/worker/0"]


def test_a_component_gets_its_least_number_before_another_gets_more() -> None:
    shards = [shard(name, "a1") for name in "abcd"]
    result = planned(shards, 3, names=(API, WORKER), rules={WORKER: CompositeRule(replicas=3)})
    assert sorted(str(component) for component, _ in result.bind) == [
        "shard://shop/web/api/0",
        "shard://shop/web/worker/0",
        "shard://shop/web/worker/1",
        "shard://shop/web/worker/2",
    ]


def test_a_pool_without_shards_binds_nothing() -> None:
    assert planned([], 2) == BindPlan(bind=(), drain=())


BEFORE = PoolId("before")


def test_a_replica_of_the_pool_before_serves_on_and_comes_to_this_pools_first_free_shard() -> None:
    old = [shard("old0", "a1", ShardState.BOUND, BEFORE), shard("old1", "a2", ShardState.BOUND, BEFORE)]
    rules = {API: CompositeRule(replicas=2)}
    serving = (bound(0, "old0"), bound(1, "old1"))
    assert planned(old, 2, serving, rules=rules) == BindPlan(bind=(), drain=())
    result = planned([*old, shard("new0", "g1")], 2, serving, rules=rules)
    assert (result.bind, result.drain) == (((replica(0), "new0"),), ())
    enough = planned(
        [*old, shard("new0", "g1", ShardState.BOUND), shard("new1", "g1")], 2, (bound(0, "new0"), serving[1])
    )
    assert (enough.bind, enough.drain) == (((replica(1), "new1"),), ())


def test_a_replica_of_the_pool_before_that_nobody_wants_any_more_is_drained() -> None:
    old = [shard("old0", "a1", ShardState.BOUND, BEFORE), shard("old1", "a2", ShardState.BOUND, BEFORE)]
    result = planned([*old, shard("new0", "g1")], 1, (bound(0, "old0"), bound(1, "old1")))
    assert (result.bind, result.drain) == (((replica(0), "new0"),), (replica(1),))


def test_a_replica_with_data_leaves_the_pool_before_only_for_a_place_and_is_drained_first() -> None:
    rules = {API: CompositeRule(storage=PoolId("disks"))}
    old = shard("old0", "a1", ShardState.BOUND, BEFORE)
    assert planned([old], 1, (bound(0, "old0"),), rules=rules) == BindPlan(bind=(), drain=())
    result = planned([old, shard("new0", "g1")], 1, (bound(0, "old0"),), rules=rules)
    assert (result.bind, result.drain) == ((), (replica(0),))
    drained = planned([old, shard("new0", "g1")], 1, (bound(0, "old0", draining=True),), rules=rules)
    assert (drained.bind, drained.drain, drained.keep) == ((), (), ())


def test_a_shard_that_another_pools_component_is_still_on_is_no_place() -> None:
    held = shard("a", "a1", ShardState.BOUND)
    elsewhere = ComponentName(namespace="shop", workload="web", component="moved")
    there = bound(0, "a").model_copy(update={"component": elsewhere})
    assert planned([held], 1, (there,)) == BindPlan(bind=(), drain=())
