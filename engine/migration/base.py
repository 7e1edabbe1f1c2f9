"""What a move needs from the rest of the control plane, and what it offers."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Protocol

from pydantic import Field

from agent.wire import AttachedDisk, GuestProfile, Landing, OverlayInterface, ShardStatus
from engine.clock import Clock
from engine.fleet.agent_client import AgentClient
from engine.model.capacity import Resources
from engine.model.ids import MoveId, NodeId, ShardId
from engine.model.move import MovePhase, MoveProgress, MoveReport, MoveRequest
from engine.model.placement import Shard
from engine.model.value import Utc, Value

Positive = Annotated[float, Field(gt=0)]
OVERLAY_PREFIX = 16


class Mover(Protocol):
    """Moves shards; a failed move is a report with an error and a phase, not an exception."""

    def move(self, request: MoveRequest) -> MoveReport:
        """Blocks until the move has ended. The same id again is the same move."""
        ...


class ShardOwnership(Protocol):
    """The part of the shard map that decides who may run (engine.store.shard_map.ShardMap)."""

    def get(self, shard_id: ShardId) -> Shard:
        """Raises UnknownName for a shard that is not there any more."""
        ...

    def move(self, shard_id: ShardId, *, expected_epoch: int, to_node: NodeId, move_id: MoveId | None = None) -> Shard:
        """Owner := ``to_node``, epoch := ``expected_epoch`` + 1, or StaleEpoch; a repeat by the same move succeeds."""
        ...


class AttachedStorage(Protocol):
    """Storage that stays where it is while the shard that uses it moves (engine.composition.storage.Storage)."""

    def admit(self, shard_id: ShardId, destination: NodeId) -> AttachedDisk | None:
        """Let the waiting guest connect; None for a shard without storage elsewhere."""
        ...

    def hand_over(self, shard_id: ShardId) -> None:
        """The shard's owner in the store is the only user from now on. Does not raise: it is done again later."""
        ...


class NoStorage:
    """Where no shard has any."""

    def admit(self, shard_id: ShardId, destination: NodeId) -> AttachedDisk | None:
        return None

    def hand_over(self, shard_id: ShardId) -> None:
        return


class MoveLimits(Value):
    """Bounds of a move, in seconds unless named otherwise."""

    reserve_ttl: Positive = 120.0
    mirror_floor_mib_per_second: Positive = 4.0
    """A mirror slower than this on average is given up."""
    mirror_at_least: Positive = 30.0
    precopy: Positive = 120.0
    """How long memory may take to converge before a voluntary move is given up."""
    stall: Positive = 10.0
    """Without a new minimum of remaining bytes for this long, pre-copy does not converge."""
    max_downtime_ms: Annotated[int, Field(gt=0)] = 2000
    """The downtime limit is raised up to this for a pre-copy that stalls."""
    auto_converge: bool = False
    """A guest under KVM that writes faster than memory is sent may be slowed down."""
    post_copy: bool = False
    """A guest that still does not converge may run on the destination before all its memory is there. If the source
    dies meanwhile, the memory is lost and the shard boots from the destination's disk."""
    healthy: Positive = 10.0
    """For so long the link must have carried something at every look before post-copy depends on it."""
    switch: Positive = 20.0
    """From the pause of the guest to its running again; longer is in doubt."""
    deadline_reserve: Positive = 5.0
    """Kept of a deadline for fencing and switching."""
    unreachable: Positive = 20.0
    """How long a node may stay silent before the move decides without it."""
    prepare: Positive = 60.0
    """For room and a waiting guest at the destination."""

    def mirror(self, disk_mib: int) -> float:
        """Seconds that a disk of that size may take."""
        return self.mirror_at_least + 2 * disk_mib / self.mirror_floor_mib_per_second

    def before_commit(self, disk_mib: int) -> float:
        """Seconds from the beginning to the commit point; after that a move without a deadline is given up."""
        return self.prepare + self.mirror(disk_mib) + self.precopy + self.switch + self.unreachable

    def after_commit(self) -> float:
        """Seconds from the commit point until one side runs; after that the move is in doubt, and swept."""
        return self.switch + self.unreachable


class MovePlan(Value):
    """What a move found when it began; every later step works from this."""

    request: MoveRequest
    epoch: int
    """The epoch before the move; the commit point raises it by one."""
    resources: Resources
    image: str
    address: OverlayInterface
    mac: str
    disk_mib: int
    profile: GuestProfile
    attached: bool = False
    """Whether the guest has a disk from elsewhere; it stays where it is."""
    started_at: Utc

    @classmethod
    def of(cls, request: MoveRequest, shard: Shard, status: ShardStatus, started_at: Utc) -> "MovePlan":
        return cls(
            request=request, epoch=shard.epoch, resources=status.resources, image=status.image,
            address=status.address, mac=status.mac, disk_mib=status.disk_mib, profile=status.profile,
            attached=status.attached is not None, started_at=started_at,
        )  # fmt: skip


class MoveInDoubt(Value):
    """What is still known of a move that is looked at again: enough to decide and to clear up, not to copy."""

    request: MoveRequest
    epoch: int
    started_at: Utc


class Transfer(Value):
    """How the part of a move ended that carries memory and ownership."""

    phase: MovePhase
    """Where the move stands: COMMITTED, ROLLING_BACK (before the commit point or given back after it) or IN_DOUBT."""
    strategy: str = "pre-copy"
    epoch_after: int
    downtime_seconds: float = 0.0
    memory_bytes: int = 0
    disk_bytes: int = 0
    error: str = ""


Observer = Callable[[MoveId, MovePhase], None]
"""Told of every phase as it is entered; must return at once, since the guest may be paused meanwhile."""


def _nobody(_move: MoveId, _phase: MovePhase) -> None:
    return


def _unwatched(_progress: MoveProgress) -> None:
    return


def _never(_move: MoveId) -> bool:
    return False


def no_leases(_shard: ShardId, since: datetime) -> datetime:
    return since


@dataclass(frozen=True)
class MoveContext:
    """What the composition root hands in."""

    agents: Callable[[NodeId], AgentClient]
    shards: ShardOwnership
    clock: Clock
    limits: MoveLimits = field(default_factory=MoveLimits)
    observer: Observer = _nobody
    progress: Callable[[MoveProgress], None] = _unwatched
    """Told of every phase and of what is left to copy; must return at once too."""
    cancelled: Callable[[MoveId], bool] = _never
    """Whether an operator does not want the move any more; asked between two acts, so it must return at once."""
    free_at: Callable[[ShardId, datetime], datetime] = no_leases
    """When a node that is gone does not run a shard any more, though it may only be cut off (engine.store.run_leases);
    without run leases its word that it is gone is all there is."""
    storage: AttachedStorage = field(default_factory=NoStorage)


__all__ = ["Landing", "MoveContext", "MoveLimits", "MovePlan", "Mover", "Observer", "ShardOwnership", "Transfer"]
