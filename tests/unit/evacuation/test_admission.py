from engine.evacuation.admission import admits, gets_out
from engine.model.capacity import Resources
from engine.model.ids import CellId, NodeId
from engine.model.market import PurchaseOption
from engine.model.money import usd
from engine.model.placement import Node, NodeState

MIB_128 = Resources(vcpus=1, memory_gib=0.125)


def node(option: PurchaseOption = PurchaseOption.SPOT, mbps: float = 200) -> Node:
    return Node(
        id=NodeId("n"), cell=CellId("gcp/account/r1"), zone="z", instance_type="t", option=option,
        hourly_price=usd("0.1"), state=NodeState.JOINED,
        resources=Resources(vcpus=64, memory_gib=64, network_mbps=mbps),
    )  # fmt: skip


def test_what_fits_through_the_link_in_time_gets_out() -> None:
    # 200 Mbit/s for 20 of 30 seconds: 500 MB, of which each guest of 128 MiB sends 67
    assert gets_out([0.125] * 7, bandwidth_mbps=200, notice_seconds=30)
    assert not gets_out([0.125] * 8, bandwidth_mbps=200, notice_seconds=30)


def test_a_longer_notice_admits_more_and_one_that_is_over_before_it_is_seen_nothing() -> None:
    assert gets_out([0.125] * 40, bandwidth_mbps=200, notice_seconds=120)
    assert not gets_out([0.125], bandwidth_mbps=200, notice_seconds=10)
    assert gets_out([], bandwidth_mbps=200, notice_seconds=5)


def test_a_spot_node_takes_no_more_than_gets_out_of_it_again() -> None:
    assert admits(node(), [MIB_128] * 6, MIB_128)
    assert not admits(node(), [MIB_128] * 7, MIB_128)


def test_a_node_that_is_not_taken_back_or_whose_link_is_unknown_takes_what_has_room() -> None:
    assert admits(node(PurchaseOption.ON_DEMAND), [MIB_128] * 400, MIB_128)
    assert admits(node(mbps=0), [MIB_128] * 400, MIB_128)
