import copy
from datetime import timedelta
from typing import Any

import pytest

from engine.app.configured import composite_rules
from engine.config import parse_configuration
from engine.errors import ConfigurationError
from engine.model.capacity import Growth
from engine.model.composite import CompositeRule, HealthCheck
from engine.model.ids import PoolId
from engine.model.placement import ComponentName
from tests.unit.engine.test_config import GOOD

DISKS = {
    "shard_types": [*GOOD["shard_types"], {"name": "disk.small", "vcpus": 0.1, "memory_gib": 0.1, "disk_gib": 1}],
    "pools": [*GOOD["pools"], {"id": "disks", "shard_type": "disk.small", "risk_class": "gold"}],
}
API = ComponentName(namespace="shop", workload="web", component="api")


def with_component(**keys: Any) -> dict[str, Any]:
    component = {"name": "api", "pool": "web"} | keys
    workload = {"namespace": "shop", "name": "web", "components": [component]}
    return copy.deepcopy(GOOD) | DISKS | {"workloads": [workload]}


def problems(**keys: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        parse_configuration(with_component(**keys), origin="f")
    return caught.value.what


def test_a_component_that_says_nothing_has_no_rule() -> None:
    assert composite_rules(parse_configuration(GOOD, origin="f")) == {}


def test_what_a_component_may_say() -> None:
    health = {"port": 80, "interval_seconds": 2, "replace_after_seconds": 60}
    raw = with_component(replicas=3, max_provider_share=0.5, drain_seconds=0, health=health, storage="disks")
    assert composite_rules(parse_configuration(raw, origin="f")) == {
        API: CompositeRule(
            replicas=3,
            max_provider_share=0.5,
            drain=timedelta(0),
            check=HealthCheck(port=80, interval_seconds=2),
            replace_after=timedelta(minutes=1),
            storage=PoolId("disks"),
        )
    }
    plain = composite_rules(parse_configuration(with_component(health={}), origin="f"))[API]
    assert (plain.check, plain.replace_after, plain.drain) == (HealthCheck(), None, timedelta(seconds=10))


def test_what_makes_no_sense_is_refused_with_its_path() -> None:
    assert "storage: unknown pool 'disk'; did you mean 'disks'?" in problems(storage="disk")
    assert "components.0.storage: the shards of pool 'web' have no disk_gib to lend" in problems(storage="web")
    assert "components.0.pool: pool 'disks' lends disks and runs no guests" in problems(pool="disks")
    assert "max_parts must be 1 with storage" in problems(storage="disks", max_parts=2)
    assert "timeout_seconds must be less than interval_seconds" in problems(health={"timeout_seconds": 5})
    assert "health.portt: unknown key; did you mean 'port'?" in problems(health={"portt": 1})
    assert "components.0.replicas" in problems(replicas=0)


def test_how_far_the_shards_of_a_pool_may_grow() -> None:
    pool = GOOD["pools"][0] | {"memory_grows_to_gib": 16, "vcpus_grow_to": 2}
    found = parse_configuration(copy.deepcopy(GOOD) | {"pools": [pool]}, origin="f")
    assert found.growth_of(PoolId("web")) == Growth(memory_gib=16, vcpus=2)
    assert parse_configuration(GOOD, origin="f").growth_of(PoolId("web")) == Growth()


@pytest.mark.parametrize(
    ("key", "most", "told"),
    [
        ("memory_grows_to_gib", 1, "1 is less than the 2 of cpu.small"),
        ("vcpus_grow_to", 0.5, "0.5 is less than the 1 of cpu.small"),
        ("memory_grows_to_gib", "much", "a valid number"),
        ("vcpus_grow_to", 0, "greater than 0"),
    ],
)
def test_growing_to_less_is_a_mistake_of_the_file(key: str, most: object, told: str) -> None:
    pool = GOOD["pools"][0] | {key: most}
    with pytest.raises(ConfigurationError, match=rf"pools\.0\.{key}: .*{told}"):
        parse_configuration(copy.deepcopy(GOOD) | {"pools": [pool]}, origin="f")
