import pytest

from agent.resizing import require_possible
from engine.errors import UsageError
from engine.model.capacity import Resources
from tests.unit.agent.conftest import PROFILE

BOOTED = PROFILE.model_copy(update={"memory_mib": 128, "memory_growth_mib": 384, "cpus": 2})
HAS = Resources(vcpus=1, memory_gib=0.125, storage_iops=40)


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"vcpus": 2.0},
        {"vcpus": 0.1, "memory_gib": 0.5},
        {"storage_iops": 100_000.0, "network_mbps": 1.0},
    ],
)
def test_what_its_guest_has_room_for_is_possible(wanted: dict[str, float]) -> None:
    require_possible(BOOTED, HAS, HAS.model_copy(update=wanted))


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ({"vcpus": 2.5}, "up to 2 vCPUs while it runs; 2.5 asked for"),
        ({"memory_gib": 1.0}, "128 to 512 MiB while it runs; 1024 MiB asked for"),
        ({"memory_gib": 0.0625}, "128 to 512 MiB"),
    ],
)
def test_what_it_can_never_have_is_told_with_what_it_can(wanted: dict[str, float], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        require_possible(BOOTED, HAS, HAS.model_copy(update=wanted))


def test_a_guest_of_an_earlier_version_keeps_its_share_and_may_change_the_rest() -> None:
    require_possible(PROFILE, HAS, HAS.model_copy(update={"storage_iops": 10.0}))
    with pytest.raises(UsageError, match="vCPUs cannot change"):
        require_possible(PROFILE, HAS, HAS.model_copy(update={"vcpus": 0.5}))
