import pytest

from engine.clock import ManualClock
from engine.errors import AuthenticationFailed
from engine.model.ids import NodeId
from engine.store.attested_instances import AttestedInstances
from engine.store.database import Database

NODE, KEY, OTHER_KEY = NodeId("n1"), "a" * 64, "b" * 64


@pytest.fixture
def instances(database: Database, clock: ManualClock) -> AttestedInstances:
    return AttestedInstances(database, clock)


def test_an_instance_is_used_once_but_its_key_may_come_again(instances: AttestedInstances) -> None:
    assert instances.key_of("aws", "i-1") is None
    instances.use("aws", "i-1", NODE, KEY)
    instances.use("aws", "i-1", NODE, KEY)
    with pytest.raises(AuthenticationFailed, match="i-1 has joined already"):
        instances.use("aws", "i-1", NODE, OTHER_KEY)
    assert instances.key_of("aws", "i-1") == KEY


def test_ids_of_two_providers_do_not_meet(instances: AttestedInstances) -> None:
    instances.use("aws", "1", NODE, KEY)
    instances.use("gcp", "1", NODE, OTHER_KEY)
