"""What control plane and agents say to each other: JSON bodies over HTTPS with mutual TLS.

Every body is a frozen, strict value. A refusal is a ``Problem`` whose ``error`` is a class name of engine.errors.
"""

from enum import StrEnum
from ipaddress import IPv4Address, IPv4Interface
from typing import Annotated

from pydantic import AfterValidator, Field

from agent.agent_url import AgentUrl
from engine.model.attestation import LARGEST_EVIDENCE
from engine.model.capacity import Resources
from engine.model.composite import HealthCheck, HealthState
from engine.model.ids import MoveId, NodeId, ShardId
from engine.model.placement import Epoch
from engine.model.value import Utc, Value
from engine.model.workload_image import WorkloadImage

CONTROL_NAME = "shardwright-control"
"""DNS name in the control plane's certificate; agents verify it whatever address they dial."""
TRUST_DOMAIN = "shardwright"


def control_identity() -> str:
    return f"spiffe://{TRUST_DOMAIN}/control"


def node_identity(node: NodeId) -> str:
    return f"spiffe://{TRUST_DOMAIN}/node/{node}"


def _interface(text: str) -> str:
    IPv4Interface(text)
    return text


def _address(text: str) -> str:
    IPv4Address(text)
    return text


Ipv4 = Annotated[str, AfterValidator(_address)]
OverlayInterface = Annotated[str, AfterValidator(_interface)]
"""IPv4 address with prefix length, e.g. ``10.9.0.2/16``."""
Mac = Annotated[str, Field(pattern=r"^[0-9a-f]{2}(:[0-9a-f]{2}){5}$")]
NAME = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
"""Ids become file names on the node, so their letters are bounded."""


class Problem(Value):
    error: str
    what: str
    why: str = ""
    next_step: str = ""


# --- joining ----------------------------------------------------------------------------------------------------------


class ChallengeRequest(Value):
    """What a node asks first when its provider is to vouch for it."""

    node: Annotated[NodeId, NAME]
    csr_pem: str


class Challenge(Value):
    """To be put into the identity document, where the provider takes one; good for this node and key, for minutes."""

    challenge: str


class JoinRequest(Value):
    """A certificate request (all but its public key is ignored), and why it should be granted.

    Either a one-use token, or the provider's signed identity document as ``evidence`` with the challenge that it
    answers.
    """

    node: Annotated[NodeId, NAME]
    token: str = ""
    challenge: Annotated[str, Field(max_length=128)] = ""
    evidence: Annotated[str, Field(max_length=LARGEST_EVIDENCE)] = ""
    csr_pem: str
    agent_url: AgentUrl
    underlay_address: str
    capacity: Resources


class RenewRequest(Value):
    """Over mutual TLS: the node is the one named in the certificate."""

    csr_pem: str


class Certificate(Value):
    certificate_pem: str
    ca_pem: str
    not_after: Utc


class NoticeReport(Value):
    """A reclaim notice as the agent saw it at its provider's metadata address."""

    seen_at: Utc
    at: Utc
    reason: str


class HeldShard(Value):
    shard: Annotated[ShardId, NAME]
    epoch: Epoch


class LeaseRequest(Value):
    """The shards that run on the node, each at the epoch that the node obeys."""

    shards: Annotated[tuple[HeldShard, ...], Field(max_length=500)]


class LeaseGrant(Value):
    """Those of them that may run on, for the lease's length from when they were asked for."""

    shards: tuple[ShardId, ...]


class ReportedHealth(Value):
    shard: Annotated[ShardId, NAME]
    epoch: Epoch
    state: HealthState
    reason: Annotated[str, Field(max_length=500)] = ""


class HealthRequest(Value):
    """What the node thinks of its own shards, those that no check is asked for included (``unknown``)."""

    shards: Annotated[tuple[ReportedHealth, ...], Field(max_length=500)]


class OrderedCheck(Value):
    shard: ShardId
    check: HealthCheck


class HealthOrders(Value):
    """Which of the node's shards are to be checked from now on, and how."""

    checks: tuple[OrderedCheck, ...]


# --- shards -----------------------------------------------------------------------------------------------------------


class GuestState(StrEnum):
    """What the shard's guest is doing on this node."""

    RUNNING = "running"
    INCOMING = "incoming"
    """Waiting for a move to arrive; does not run."""
    PAUSED = "paused"
    """In the switchover of a move, or moved away and kept until the move is cleaned."""
    DEAD = "dead"
    """Its process is gone; its disk is still here."""
    HUNG = "hung"
    """Its process is there and its monitor does not answer: it may run or not, and is nobody's to boot anew."""


class NetworkMode(StrEnum):
    BRIDGE = "bridge"
    """A tap on the node's overlay bridge: the address is reachable from every node."""
    USER = "user"
    """QEMU's own network: reachable through a forwarded port on this node only; connections do not survive a move."""


class GuestProfile(Value):
    """What must be equal on both sides of a move."""

    qemu_version: str
    machine: str
    accelerator: str
    cpu: str
    image_digest: str
    memory_mib: int = 0
    """What the guest boots with; 0: its record is older than this field, and its memory cannot change."""
    memory_growth_mib: int = 0
    """Room for what may be plugged in beyond it while the guest runs."""
    cpus: int = 0
    """Virtual CPUs that the guest boots with; 0: its record is older than this field, and its share cannot change."""
    bare_stream: bool = False
    """QEMU's migration stream ends with what the guest needs. Else a description of it follows, and a destination takes
    a stream that is cut in there for whole, while its source says that it has failed."""
    image: WorkloadImage | None = None
    """None: the record server's, which every node can build."""


class CarveRequest(Value):
    """A shard to boot. Repeating it with the same epoch is harmless."""

    shard: Annotated[ShardId, NAME]
    epoch: Epoch
    resources: Resources
    image: WorkloadImage | None = None
    """None: the record server's."""
    address: OverlayInterface
    mac: Mac
    disk_mib: Annotated[int, Field(ge=1, le=1 << 20)]
    memory_grows_to_gib: Annotated[float, Field(gt=0, le=1 << 20)] | None = None
    """The most that a resize may give it while it runs; None: four times what it boots with."""
    vcpus_grow_to: Annotated[float, Field(gt=0, le=1024)] | None = None
    """The most CPU that a resize may give it while it runs; None: what it has, rounded up to whole ones."""


class AttachedDisk(Value):
    """A storage shard's disk, as the node of a compute shard reaches it: NBD over TLS."""

    storage: Annotated[ShardId, NAME]
    epoch: Epoch
    """The storage shard's, since which this node may use it."""
    node: Annotated[NodeId, NAME]
    """Where the storage is; its certificate must say so."""
    host: str
    port: Annotated[int, Field(ge=1, le=65535)]


class VolumeRequest(Value):
    """A storage shard to be made. Repeating it is harmless, and never empties a disk."""

    shard: Annotated[ShardId, NAME]
    epoch: Epoch
    resources: Resources
    disk_mib: Annotated[int, Field(ge=1, le=1 << 24)]


class AccessRequest(Value):
    """To a storage shard: this node is its user since ``epoch``, or (admit) may become it."""

    epoch: Epoch
    node: Annotated[NodeId, NAME]


class AttachRequest(Value):
    """To a compute shard."""

    epoch: Epoch
    disk: AttachedDisk


class MeasuredPerformance(Value):
    """As the guest counted it, on this node; None: not measured yet."""

    boot_seconds: float | None = None
    from_template: bool = False
    """It did not boot but was restored; ``cpu_rounds_per_second`` is then what its template counted on this host."""
    cpu_rounds_per_second: int | None = None
    """Rounds of a fixed interpreter loop, one core."""
    read_iops: int | None = None
    """4 KiB direct reads of its disk, one at a time, throttle included."""
    memory_mib: int | None = None
    """What the guest's kernel counts as its memory: the setting less what the kernel itself takes."""
    receive_mbps: float | None = None
    """What arrived at the guest's network card under a flood, in Mbit/s."""
    send_mbps: float | None = None
    """What the network took of the guest's own flood, in Mbit/s."""


class ShardStatus(Value):
    shard: ShardId
    epoch: Epoch
    state: GuestState
    resources: Resources
    address: OverlayInterface
    mac: Mac
    disk_mib: int
    image: str
    profile: GuestProfile
    network: NetworkMode
    forwarded_port: int | None = None
    """With ``NetworkMode.USER``: the loopback port that leads to the record server."""
    measured: MeasuredPerformance = MeasuredPerformance()
    limits_enforced: tuple[str, ...] = ()
    """Of cpu, memory, storage_iops, network_mbps: those that something enforces on this node."""
    move: MoveId | None = None
    """The move that this shard takes part in here."""
    attached: AttachedDisk | None = None
    """Its second disk, which is elsewhere."""


class NodeStatus(Value):
    node: NodeId
    version: str
    started_at: Utc
    capacity: Resources
    reserved: Resources
    """Carved shards plus reservations of moves under way."""
    network: NetworkMode
    accelerator: str | None
    """None: not probed yet (the first carve does)."""
    resident_bytes: int
    """Memory of the agent itself."""
    shards: tuple[ShardStatus, ...]


class MeasureRequest(Value):
    """Let the guest measure itself, which takes its CPU, its disk and its network in turn for so long each."""

    epoch: Epoch
    seconds: Annotated[int, Field(ge=1, le=20)] = 3


class EpochRequest(Value):
    """A bare command to one shard: release."""

    epoch: Epoch


class ResizeRequest(Value):
    epoch: Epoch
    resources: Resources


# --- moves ------------------------------------------------------------------------------------------------------------


class MoveCommand(Value):
    """Which move, at which epoch. A lower epoch than the node has stored is refused (StaleEpoch)."""

    move: Annotated[MoveId, NAME]
    epoch: Epoch


class AbortRequest(MoveCommand):
    given_away: bool = False
    """The store has given the shard to another node by this move, at this epoch."""


class ReserveRequest(MoveCommand):
    resources: Resources
    ttl_seconds: Annotated[float, Field(gt=0, le=3600)] = 60.0


class PrepareRequest(MoveCommand):
    """To the destination: the guest as it will arrive. ``epoch`` is the source's."""

    source: Annotated[NodeId, NAME]
    resources: Resources
    image: str
    address: OverlayInterface
    mac: Mac
    disk_mib: int
    profile: GuestProfile
    attached: AttachedDisk | None = None
    """Its second disk, to which the destination has been admitted; it does not move."""
    post_copy: bool = False
    """It may have to run before all its memory is here."""


class Landing(Value):
    """Where the destination waits for memory and disk."""

    node: NodeId
    host: str
    memory_port: int
    disk_port: int
    post_copy: bool = False
    """It was asked for, and this node's kernel lets an unprivileged guest do it."""


class MirrorRequest(MoveCommand):
    landing: Landing


class SendRequest(MirrorRequest):
    """Start sending memory."""

    auto_converge: bool = False
    """A guest that writes too fast may be slowed down once it is asked for (``TuneRequest.throttle``)."""


class TuneRequest(MoveCommand):
    """Help a pre-copy that does not converge."""

    downtime_limit_ms: Annotated[int, Field(gt=0, le=2_000_000)] | None = None
    stop_guest: bool = False
    """Stop-and-copy: the guest waits while the rest is copied."""
    throttle: bool = False
    """Auto-converge: the guest gets less and less CPU until the copy keeps up with it."""
    post_copy: bool = False
    """Pause for the switchover now, however much is left: the rest follows when the destination runs."""


class SwitchoverRequest(MoveCommand):
    send_rest: bool = False
    """The rest of the memory need not wait for the store: it goes once the guest is paused and its mirror has ended.
    Not where the move may be in post-copy (there sending it is final), nor without a bare stream (GuestProfile)."""


class SourceStatus(Value):
    """The source's half of a move, read from QEMU just now."""

    running: bool
    mirror_ready: bool
    mirror_present: bool
    mirrored: bool = False
    """The mirror was ended by the switchover, and the guest has not run since: both disks are equal. One that is absent
    without it has broken off."""
    exact: bool = False
    """A guest that waits for its switchover has lost no page on its way: its memory need not be compared."""
    disk_bytes_done: int = 0
    disk_bytes_total: int = 0
    migration: str
    """QEMU's word: none, setup, active, pre-switchover, device, completed, failed, cancelled …"""
    remaining_bytes: int = 0
    transferred_bytes: int = 0
    bytes_per_second: float = 0.0
    downtime_ms: int = 0
    total_ms: int = 0
    error: str = ""


class DestinationStatus(Value):
    """The destination's half."""

    present: bool
    """Its QEMU process is alive."""
    silent: bool = False
    """And does not answer: what only QEMU knows is not told then."""
    arrived: bool = False
    """All memory is here; it waits for ``commit``."""
    committed: bool = False
    """It was told to run: from then on its disk may hold what no other copy has, whether it lives or not."""
    landed: bool = False
    """Enough is here to run: all memory, or all but what post-copy fetches."""
    receiving: bool = False
    """It was told to run while memory still came, and the move is not over here."""
    running: bool = False
    booting: bool = False
    """Told to boot from its disk, and not seen up yet."""
    migration: str = "none"


class MemoryDigest(Value):
    """A paused guest's memory in short: the CRC-32 of every 64 KiB, eight hexadecimal letters each."""

    sums_hex: Annotated[str, Field(pattern=r"^([0-9a-f]{8})*$")]


class MemoryPatch(Value):
    """Chunks of a guest's memory, to be copied once more."""

    indexes: tuple[int, ...]
    data_hex: tuple[str, ...]


class MemoryRequest(MoveCommand):
    indexes: tuple[int, ...]


class PatchRequest(MoveCommand):
    patch: MemoryPatch


class CommitRequest(MoveCommand):
    memory: MemoryDigest | None = None
    """What the destination's memory must be before it may run; None: not compared (KVM, or the source is gone)."""


class KeepRequest(MoveCommand):
    """From a node to the control plane: my guest is paused and nobody drives the move; may I end it and run on?"""


class Verdict(Value):
    """The store's answer. ``epoch`` is what the node must run at when the shard is its own, else the owner's."""

    yours: bool
    epoch: Epoch


class Proceeded(Value):
    """The source has sent what it had to send."""

    status: SourceStatus
    memory: MemoryDigest | None = None
    seconds_since_sent: float = 0.0
    """The part of the answer's time that QEMU does not count as downtime, though the guest waits."""


class Committed(Value):
    """The guest runs on the destination, unless ``differing`` chunks of its memory must be copied again first."""

    differing: tuple[int, ...] = ()
    seconds_since_running: float = 0.0
    """The part of the answer's time that was not downtime."""
