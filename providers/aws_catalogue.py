"""Which instance types a region sells, in which zones, and what one of them is worth."""

import threading
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta

from engine.clock import Clock
from engine.model.capacity import Resources
from providers.aws_api import AwsApi
from providers.aws_wire import InstanceType, InstanceTypes, Offerings

FAMILIES = ("t3", "m5", "m6i", "m7i", "m8i", "c6i", "c7i", "c8i", "r6i", "r7i", "r8i")
SIZES = ("medium", "large", "xlarge", "2xlarge", "4xlarge", "8xlarge")
"""x86-64 only: a microVM moves live between nodes of one architecture."""

_FAMILY_SCORE = {"t3": 1.0, "m5": 1.0}
_GENERATION_SCORE = {"6": 1.15, "7": 1.38, "8": 1.66}
_BURST_BASELINE = {"medium": 0.2, "large": 0.3}
_TYPES_KEPT = timedelta(hours=1)
_NAMES_A_CALL = 100
"""DescribeInstanceTypes takes no more."""


@dataclass(frozen=True)
class Catalogue:
    """What one region sells; it changes seldom."""

    types: dict[str, InstanceType]
    zones: dict[str, tuple[str, ...]]
    """type -> zones that offer it."""
    fetched_at: datetime


class Catalogues:
    """The catalogue of each region, asked for once an hour. Thread-safe."""

    def __init__(self, api: AwsApi, clock: Clock) -> None:
        self._api, self._clock = api, clock
        self._kept: dict[str, Catalogue] = {}
        self._lock = threading.Lock()

    def of(self, region: str) -> Catalogue:
        """Raises what ``AwsApi.ask`` raises."""
        with self._lock:
            kept = self._kept.get(region)
        if kept and self._clock.now() - kept.fetched_at < _TYPES_KEPT:
            return kept
        zones = self._zones(region)
        fresh = Catalogue(self._types(region, sorted(zones)), zones, self._clock.now())
        with self._lock:
            self._kept[region] = fresh
        return fresh

    def _zones(self, region: str) -> dict[str, tuple[str, ...]]:
        asked = [f"{family}.{size}" for family in FAMILIES for size in SIZES]
        arguments = {"LocationType": "availability-zone", "Filters": [{"Name": "instance-type", "Values": asked}]}
        zones: dict[str, list[str]] = defaultdict(list)
        for listed in self._api.pages(Offerings, "ec2", region, "describe_instance_type_offerings", **arguments):
            for offering in listed.instance_type_offerings:
                zones[offering.instance_type].append(offering.location)
        return {kind: tuple(sorted(where)) for kind, where in zones.items()}

    def _types(self, region: str, names: list[str]) -> dict[str, InstanceType]:
        types: dict[str, InstanceType] = {}
        for first in range(0, len(names), _NAMES_A_CALL):
            some = names[first : first + _NAMES_A_CALL]
            told = self._api.ask(InstanceTypes, "ec2", region, "describe_instance_types", InstanceTypes=some)
            types.update({facts.instance_type: facts for facts in told.instance_types})
        return types


def performance_score(facts: InstanceType) -> float:
    """Sustained single-vCPU score; 1.0 is an m5 (Skylake-SP or Cascade Lake at 3.1 GHz).

    From AWS's own statements at launch: 6th generation "up to 15 % better compute price performance" than the 5th at
    the same price; 7th 15 % over that at a 5 % higher price; 8th "20 % higher performance" than the 7th. Burstable
    types count with the share of a vCPU that they sustain: t3.medium 20 %, t3.large 30 %, larger 40 %. A type of an
    unknown generation is scored by its clock alone, relative to 3.1 GHz.
    """
    family, _, size = facts.instance_type.partition(".")
    generation = next((letter for letter in family if letter.isdigit()), "")
    clock = (facts.processor_info.sustained_clock_speed_in_ghz or 3.1) / 3.1
    score = _FAMILY_SCORE.get(family) or _GENERATION_SCORE.get(generation) or clock
    return score * (_BURST_BASELINE.get(size, 0.4) if facts.burstable_performance_supported else 1.0)


def baseline_resources(facts: InstanceType) -> Resources:
    """Baselines, not bursts: what the instance keeps up all day."""
    return Resources(
        vcpus=float(facts.v_cpu_info.default_v_cpus),
        memory_gib=facts.memory_info.size_in_mi_b / 1024,
        storage_iops=float(facts.ebs_info.ebs_optimized_info.baseline_iops),
        network_mbps=sum(card.baseline_bandwidth_in_gbps for card in facts.network_info.network_cards) * 1000,
    )
