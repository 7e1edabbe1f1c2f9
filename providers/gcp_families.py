"""What Google's API does not say about its machine families: network, disk, speed, and how often Spot is taken back.

Figures are those of Google's Compute Engine documentation ("General-purpose machine family", "Persistent Disk
performance", "Spot VMs"), read for 2 to 8 vCPUs.
"""

from dataclasses import dataclass

from engine.model.capacity import Resources
from providers.gcp_wire import MachineType


@dataclass(frozen=True)
class Family:
    network_mbps: tuple[tuple[int, int], ...]
    """(from this many vCPUs, egress in Mbit/s): the documented maximum egress of the default tier."""
    performance: float
    """Sustained single-vCPU score; 1.0 is a Skylake-SP or Cascade Lake core at about 3 GHz."""
    quota: str
    """The regional quota that on-demand vCPUs count against."""


FAMILIES = {
    # E2 runs on whatever platform is free (Skylake to Milan) and balances load between hosts: scored a little lower.
    "e2": Family(((2, 4_000), (4, 8_000), (8, 16_000)), 0.9, "CPUS"),
    # Ice Lake or Cascade Lake.
    "n2": Family(((2, 10_000), (8, 16_000), (16, 32_000)), 1.1, "N2_CPUS"),
    "n2d": Family(((2, 10_000), (8, 16_000), (16, 32_000)), 1.1, "N2D_CPUS"),
    # Sapphire Rapids.
    "c3": Family(((4, 23_000),), 1.38, "C3_CPUS"),
}
SPOT_QUOTA = "PREEMPTIBLE_CPUS"
"""Where a project has this quota (limit above 0) spot vCPUs count against it, else against the family's."""

_PERSISTENT_DISK_IOPS = ((16, 25_000.0), (0, 15_000.0))
"""(from this many vCPUs, IOPS): per-instance ceiling for balanced and SSD Persistent Disk; the volume must be large
enough to reach it (balanced: 3,000 and 6 per GiB)."""

SPOT_LOST_PER_DAY = 0.10
"""Google: "average preemption rate varies between 5% and 15% per day per project"; the middle of it."""
SPOT_LOST_PER_MONTH = 1 - (1 - SPOT_LOST_PER_DAY) ** (730 / 24)


def family_of(machine_type: str) -> str:
    return machine_type.partition("-")[0]


def resources_of(facts: MachineType) -> Resources | None:
    """The whole vector; None for families that are not known here and for shared-core types (a part of a vCPU)."""
    family = FAMILIES.get(family_of(facts.name))
    if family is None or facts.is_shared_cpu:
        return None
    return Resources(
        vcpus=float(facts.guest_cpus),
        memory_gib=facts.memory_mb / 1024,
        storage_iops=next(iops for least, iops in _PERSISTENT_DISK_IOPS if facts.guest_cpus >= least),
        network_mbps=float(next((m for least, m in reversed(family.network_mbps) if facts.guest_cpus >= least), 0)),
    )
