"""A node's agent as far as resizes go, with its one shard in a file: what a killed control plane finds again."""

from pathlib import Path

from agent.wire import GuestProfile, GuestState, MeasuredPerformance, NetworkMode, ShardStatus
from engine.errors import InsufficientCapacity, ProviderUnavailable, ShardwrightError, StaleEpoch
from engine.model.capacity import Resources
from engine.model.ids import NodeId, ShardId

PROFILE = GuestProfile(
    qemu_version="7.2", machine="pc", accelerator="tcg", cpu="max", image_digest="d", memory_mib=2048,
    memory_growth_mib=6144, cpus=2,
)  # fmt: skip


class ResizingNode:
    def __init__(self, file: Path, has: Resources, epoch: int = 1) -> None:
        self._file, self.epoch = file, epoch
        self.refuses: ShardwrightError | None = None
        self.silent_from: int | None = None
        self.late = self.loses_answers = False
        self.asked = 0
        if not file.exists():
            self.has = has

    @property
    def has(self) -> Resources:
        return Resources.model_validate_json(self._file.read_bytes())

    @has.setter
    def has(self, resources: Resources) -> None:
        self._file.write_text(resources.model_dump_json())

    def __call__(self, node: NodeId) -> "ResizingNode":
        return self

    def shard(self, shard: ShardId) -> ShardStatus:
        self._answers()
        return ShardStatus(
            shard=shard, epoch=self.epoch, state=GuestState.RUNNING, resources=self.has, address="10.9.0.1/16",
            mac="52:54:00:09:00:01", disk_mib=64, image="records", profile=PROFILE, network=NetworkMode.BRIDGE,
            measured=MeasuredPerformance(memory_mib=round(self.has.memory_gib * 1024) - 30),
        )  # fmt: skip

    def resize(self, shard: ShardId, epoch: int, resources: Resources) -> ShardStatus:
        self._answers()
        if epoch < self.epoch:
            raise StaleEpoch(f"shard {shard} is at epoch {self.epoch}")
        if self.refuses is not None:
            raise self.refuses
        if self.late:
            raise ProviderUnavailable("node sw-aws does not answer", why="it waits for the guest")
        self.has = resources
        if self.loses_answers:
            raise ProviderUnavailable("node sw-aws does not answer", why="the connection broke")
        return self.shard(shard)

    def _answers(self) -> None:
        self.asked += 1
        if self.silent_from is not None and self.asked >= self.silent_from:
            raise ProviderUnavailable("node sw-aws does not answer")


NO_MEMORY_BACK = InsufficientCapacity(
    "the guest of shard sw-aws-s0 has given back 4 MiB of 1024", why="and then no more",
    next_step="free memory in the guest",
)  # fmt: skip
