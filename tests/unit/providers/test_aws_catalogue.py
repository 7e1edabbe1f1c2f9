import pytest

from providers.aws_catalogue import baseline_resources, performance_score
from providers.aws_wire import InstanceType
from tests.unit.providers.aws_script import instance_type


def parsed(name: str, *, clock: float | None = 3.1, burstable: bool = False) -> InstanceType:
    processor = {"SupportedArchitectures": ["x86_64"], "SustainedClockSpeedInGhz": clock}
    raw = instance_type(name, ProcessorInfo=processor, BurstablePerformanceSupported=burstable)
    return InstanceType.model_validate(raw)


@pytest.mark.parametrize(
    ("facts", "score"),
    [
        (parsed("m5.large"), 1.0),
        (parsed("m6i.large", clock=3.5), 1.15),
        (parsed("c7i.large", clock=3.2), 1.38),
        (parsed("r8i.large", clock=3.9), 1.66),
        (parsed("t3.medium", burstable=True), 0.2),
        (parsed("t3.large", burstable=True), 0.3),
        (parsed("t3.xlarge", burstable=True), 0.4),
        (parsed("m4.large", clock=2.4), 2.4 / 3.1),
        (parsed("x.large", clock=None), 1.0),
    ],
    ids=lambda value: value.instance_type if isinstance(value, InstanceType) else "",
)
def test_performance_is_what_is_sustained(facts: InstanceType, score: float) -> None:
    assert performance_score(facts) == pytest.approx(score)


def test_a_type_that_publishes_no_baselines_has_none() -> None:
    facts = InstanceType.model_validate(instance_type("m5.large", EbsInfo={}, NetworkInfo={}))
    resources = baseline_resources(facts)
    assert (resources.storage_iops, resources.network_mbps) == (0, 0)
