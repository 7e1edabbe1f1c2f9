"""What a guest can have while it runs: decided when it booted, and told before anything is changed."""

from agent import memory_size
from agent.wire import GuestProfile
from engine.errors import UsageError
from engine.model.capacity import Resources


def require_possible(profile: GuestProfile, has: Resources, wanted: Resources) -> None:
    """Raises UsageError that says what it can have. IOPS and bandwidth are limits outside the guest: any will do."""
    if memory_size.mib(wanted.memory_gib) != memory_size.mib(has.memory_gib):
        memory_size.plugged_mib(profile, wanted)
    if wanted.vcpus != has.vcpus and wanted.vcpus > profile.cpus:
        cpus = f"{profile.cpus} virtual CPUs" if profile.cpus else "a number of virtual CPUs that was not written down"
        raise UsageError(
            f"this shard can have up to {profile.cpus} vCPUs while it runs" if profile.cpus
            else "this shard's vCPUs cannot change while it runs",
            why=f"{wanted.vcpus:g} asked for; its guest booted with {cpus}",
            next_step="carve another shard and move over",
        )  # fmt: skip
