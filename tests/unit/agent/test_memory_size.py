import pytest

from agent import memory_size
from agent.guest import profile
from agent.image import GuestImage
from agent.memory_size import devices, growth_mib, plugged_mib
from agent.wire import GuestProfile
from engine.errors import UsageError
from engine.model.capacity import Resources
from tests.unit.agent.conftest import PROFILE

GROWING = PROFILE.model_copy(update={"memory_mib": 128, "memory_growth_mib": 384})


def of(memory_mib: int) -> Resources:
    return Resources(vcpus=1, memory_gib=memory_mib / 1024)


@pytest.mark.parametrize(
    ("boot", "most", "growth"), [(128, None, 384), (128, 128, 0), (128, 200, 128), (96, 480, 384), (1000, 1001, 128)]
)
def test_room_to_grow_is_had_in_whole_blocks(boot: int, most: int | None, growth: int) -> None:
    assert growth_mib(boot, most) == growth


def test_growing_to_less_is_a_mistake() -> None:
    with pytest.raises(UsageError, match="64 MiB of 128"):
        growth_mib(128, 64)


def test_a_guest_without_room_has_no_device_for_it() -> None:
    assert devices(PROFILE, "memory-backend-memfd") == []
    backend, device = devices(GROWING, "memory-backend-memfd")[1::2]
    assert backend == "memory-backend-memfd,id=more0,size=384M,share=on"
    assert device == "virtio-mem-pci,id=vm0,memdev=more0,requested-size=0"


@pytest.mark.parametrize(("wanted", "plugged"), [(128, 0), (132, 4), (512, 384)])
def test_what_goes_beyond_the_boot_is_plugged_in(wanted: int, plugged: int) -> None:
    assert plugged_mib(GROWING, of(wanted)) == plugged


@pytest.mark.parametrize(("wanted", "why"), [(124, "124 MiB"), (516, "128 to 512"), (130, "steps of 4 MiB")])
def test_what_this_guest_can_never_have_is_refused(wanted: int, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        plugged_mib(GROWING, of(wanted))


def test_a_guest_of_an_earlier_version_keeps_its_memory() -> None:
    with pytest.raises(UsageError, match="0 to 0 MiB"):
        plugged_mib(PROFILE, of(128))


def test_a_profile_says_what_a_guest_boots_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.guest.qemu_version", lambda: "7.2")
    monkeypatch.setattr("agent.guest.default_machine", lambda: "pc")
    image = GuestImage(name="records", kernel="k", initrd="i", kernel_version="6", digest="d")
    usual: GuestProfile = profile("tcg", image, of(128))
    assert (usual.memory_mib, usual.memory_growth_mib) == (128, 128 * (memory_size.GROWS_TO - 1))
    assert profile("tcg", image, of(128), grows_to_gib=0.25).memory_growth_mib == 128
