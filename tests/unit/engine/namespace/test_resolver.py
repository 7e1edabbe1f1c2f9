from datetime import timedelta

import pytest

from engine.composition.membership import standings
from engine.errors import UnknownName, UsageError
from engine.model.composite import HealthState
from engine.model.ids import NodeId, ShardId
from engine.model.placement import Binding
from engine.namespace.resolver import Resolver
from engine.store.shard_map import ShardMap
from tests.unit.engine.composition.cases import NOW, health


def test_a_number_resolves_to_one_place(resolver: Resolver) -> None:
    (place,) = resolver.resolve("shard://acme/shop/web/1")
    assert (place.shard, place.node, place.provider, place.region, place.epoch) == (
        "s2",
        "n2",
        "gcp",
        "europe-west1",
        1,
    )
    assert place.address == "10.9.1.2"


def test_without_a_number_every_replica_answers_whatever_its_provider(resolver: Resolver) -> None:
    places = resolver.resolve("shard://acme/shop/web")
    assert [(place.name.index, place.provider) for place in places] == [(0, "aws"), (1, "gcp")]


def test_after_a_move_the_address_stays_and_the_place_changes(resolver: Resolver, shard_map: ShardMap) -> None:
    (before,) = resolver.resolve("shard://acme/shop/web/0")
    shard_map.move(ShardId("s1"), expected_epoch=1, to_node=NodeId("n2"))
    (after,) = resolver.resolve("shard://acme/shop/web/0")
    assert after.address == before.address
    assert (before.provider, after.provider, after.epoch) == ("aws", "gcp", 2)


def test_unknown_and_malformed_names_are_told_apart(resolver: Resolver) -> None:
    with pytest.raises(UnknownName, match="shard://acme/shop/web/9 is not bound"):
        resolver.resolve("shard://acme/shop/web/9")
    with pytest.raises(UsageError, match="is not a shard name"):
        resolver.resolve("acme/shop/web")


def test_a_name_leads_to_those_that_serve_and_a_number_to_its_replica(shard_map: ShardMap) -> None:
    ill = {ShardId("s1"): health("s1", HealthState.UNHEALTHY)}
    resolver = Resolver(shard_map, lambda bindings: standings(bindings, ill, {}, now=NOW))
    assert [place.name.index for place in resolver.resolve("shard://acme/shop/web")] == [1]
    assert [place.name.index for place in resolver.resolve("shard://acme/shop/web/0")] == [0]


def test_a_name_whose_last_replicas_are_drained_is_nobodys(shard_map: ShardMap) -> None:
    resolver = Resolver(shard_map, lambda bindings: standings(bindings, {}, {}, now=NOW))
    for binding in shard_map.bindings():
        shard_map.drain(binding.component, NOW + timedelta(seconds=10))
    with pytest.raises(UnknownName, match="nobody serves"):
        resolver.resolve("shard://acme/shop/web")


@pytest.mark.parametrize("given_up", [("s1",), ("s2",), ("s1", "s2")])
def test_a_replica_that_is_given_up_meanwhile_takes_no_other_with_it(
    shard_map: ShardMap, monkeypatch: pytest.MonkeyPatch, given_up: tuple[str, ...]
) -> None:
    read = shard_map.bindings

    def bindings(**wanted: str) -> tuple[Binding, ...]:
        found = read(**wanted)  # type: ignore[arg-type]
        for shard in given_up:
            shard_map.remove(ShardId(shard))
        return found

    monkeypatch.setattr(shard_map, "bindings", bindings)
    if len(given_up) == 2:
        with pytest.raises(UnknownName):
            Resolver(shard_map).resolve("shard://acme/shop/web")
    else:
        (place,) = Resolver(shard_map).resolve("shard://acme/shop/web")
        assert place.shard not in given_up
