"""The parts of AWS's answers that are used, as boto3 hands them over."""

from datetime import datetime
from decimal import Decimal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_pascal


class Wire(BaseModel):
    """A part of an AWS answer: only the fields that are used, under AWS's names; others are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_pascal, allow_inf_nan=False)


class Zone(Wire):
    zone_name: str
    zone_id: str


class Zones(Wire):
    availability_zones: tuple[Zone, ...]


class Offering(Wire):
    instance_type: str
    location: str


class Offerings(Wire):
    instance_type_offerings: tuple[Offering, ...]


class Processor(Wire):
    supported_architectures: tuple[str, ...]
    sustained_clock_speed_in_ghz: float | None = None


class VCpus(Wire):
    default_v_cpus: int = Field(alias="DefaultVCpus", gt=0)


class Memory(Wire):
    size_in_mi_b: int = Field(alias="SizeInMiB", gt=0)


class EbsOptimized(Wire):
    baseline_iops: int = 0


class Ebs(Wire):
    ebs_optimized_info: EbsOptimized = EbsOptimized()


class NetworkCard(Wire):
    baseline_bandwidth_in_gbps: float = 0


class Network(Wire):
    network_cards: tuple[NetworkCard, ...] = ()


class InstanceType(Wire):
    instance_type: str
    burstable_performance_supported: bool = False
    supported_usage_classes: tuple[str, ...] = ()
    processor_info: Processor
    v_cpu_info: VCpus = Field(alias="VCpuInfo")
    memory_info: Memory
    ebs_info: Ebs = Ebs()
    network_info: Network = Network()


class InstanceTypes(Wire):
    instance_types: tuple[InstanceType, ...]


class SpotPrice(Wire):
    availability_zone: str
    instance_type: str
    spot_price: Decimal
    timestamp: datetime


class SpotPrices(Wire):
    spot_price_history: tuple[SpotPrice, ...]


class PriceList(Wire):
    price_list: tuple[str, ...]
    """Each one a JSON document: see ``providers.aws_prices``."""


class PlacementScore(Wire):
    region: str
    score: int
    availability_zone_id: str | None = None


class PlacementScores(Wire):
    spot_placement_scores: tuple[PlacementScore, ...]


class Tag(Wire):
    key: str
    value: str


class InstanceState(Wire):
    name: str


class InstancePlacement(Wire):
    availability_zone: str


class Instance(Wire):
    instance_id: str
    instance_type: str
    state: InstanceState
    placement: InstancePlacement
    launch_time: datetime
    tags: tuple[Tag, ...] = ()


class Reservation(Wire):
    instances: tuple[Instance, ...]


class Reservations(Wire):
    reservations: tuple[Reservation, ...]
