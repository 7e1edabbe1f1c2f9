from agent.wire import MeasuredPerformance
from engine.fleet.nodes import as_measured
from engine.model.capacity import Resources

NOMINAL = Resources(vcpus=1, memory_gib=0.125, storage_iops=400, network_mbps=100)


def test_what_the_guest_counted_stands_beside_what_was_promised() -> None:
    measured = MeasuredPerformance(read_iops=391, memory_mib=96, receive_mbps=98.5)
    assert as_measured(NOMINAL, measured) == Resources(vcpus=1, memory_gib=0.09375, storage_iops=391, network_mbps=98.5)


def test_what_was_not_counted_stays_as_promised() -> None:
    assert as_measured(NOMINAL, MeasuredPerformance()) == NOMINAL
