"""The fleet: nodes that are expected, have joined, and the shards that are carved from them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta

from pydantic import SecretStr

from agent.wire import CarveRequest, MeasuredPerformance, NetworkMode, NoticeReport
from engine.clock import Clock, wait_until
from engine.errors import NotFound, NotGivenUp, ProviderUnavailable, ShardwrightError, StaleEpoch, UnknownName
from engine.fleet.agent_client import AgentClients
from engine.fleet.join import NodeJoined
from engine.fleet.user_data import UserDataSettings, render_user_data
from engine.model.capacity import Growth, Resources
from engine.model.ids import NodeId, PoolId, ShardId, provider_of
from engine.model.market import ReclaimNotice
from engine.model.placement import Node, NodeState, Shard, ShardState
from engine.model.plan import Plan, PlannedNode
from engine.model.value import Value
from engine.model.workload_image import WorkloadImage
from engine.side_by_side import side_by_side
from engine.store.join_tokens import JoinTokens
from engine.store.shard_map import ShardMap

OVERLAY_PREFIX = 16
JOIN_SECONDS = 90.0
PARALLEL_NODES = 8
_OURS = (NodeState.JOINED, NodeState.DRAINING, NodeState.LEAVING)
_MAY_BE_RECLAIMED = (NodeState.EXPECTED, NodeState.JOINED, NodeState.DRAINING, NodeState.RECLAIMING)


class Carved(Value):
    """What came of carving one shard; ``failure`` is empty when it is ready."""

    shard: ShardId
    boot_seconds: float | None = None
    failure: str = ""


class Fleet:
    """Safe to share between threads."""

    def __init__(
        self,
        *,
        shard_map: ShardMap,
        tokens: JoinTokens,
        agents: AgentClients,
        clock: Clock,
        settings_for: Callable[[str], UserDataSettings],
        disk_mib: int = 64,
        join_seconds: float = JOIN_SECONDS,
        image_of: Callable[[PoolId], WorkloadImage | None] = lambda _pool: None,
        growth_of: Callable[[PoolId], Growth] = lambda _pool: Growth(),
    ) -> None:
        """``settings_for``: a provider's user-data settings by its configured name; ``image_of``: a pool's image;
        ``growth_of``: how far its shards may grow.
        """
        self._image_of, self._growth_of = image_of, growth_of
        self._map, self._tokens, self._agents, self._clock = shard_map, tokens, agents, clock
        self._settings_for, self._disk_mib, self._join_seconds = settings_for, disk_mib, join_seconds

    # -- nodes

    def expect(self, node: Node) -> None:
        """Enter a node that is about to be created. What is already known about it stays."""
        try:
            self._map.node(node.id)
        except UnknownName:
            self._map.put_node(node)

    def user_data(self, plan: Plan) -> Mapping[NodeId, str]:
        """By node; the same text for the same node every time. Secret: some hold a join token."""
        return {planned.node.id: self._render(planned.node) for cell in plan.cells for planned in cell.nodes}

    def _render(self, node: Node) -> str:
        settings = self._settings_for(provider_of(node.cell))
        token = None if settings.vouched else SecretStr(self._tokens.issue(node.id))
        return render_user_data(node, token, settings)

    def on_join(self, joined: NodeJoined) -> None:
        """Called by the join listener. Raises UnknownName for a node nobody expects.

        One that is drained, or taken back, stays so.
        """
        self._map.update_node(joined.node, agent_url=joined.agent_url, underlay_address=joined.underlay_address)
        self._map.change_state(joined.node, NodeState.JOINED, only_from=[NodeState.EXPECTED])

    def notice(self, node: NodeId, report: NoticeReport) -> ReclaimNotice | None:
        """The node is being reclaimed; None when it leaves or is gone already. The same again for a repeated report."""
        known = self._map.node(node)
        if not self._map.change_state(node, NodeState.RECLAIMING, only_from=_MAY_BE_RECLAIMED):
            return None  # it is empty already
        provider = provider_of(known.cell)
        return ReclaimNotice(node=node, provider=provider, seen_at=report.seen_at, at=report.at, reason=report.reason)

    def wait_joined(self, planned: Iterable[PlannedNode]) -> tuple[Node, ...]:
        """Those of the nodes that have joined, once all have or the time is up."""
        wanted = [item.node.id for item in planned]

        def joined() -> tuple[Node, ...]:
            return tuple(node for node in self._map.nodes(states=[NodeState.JOINED]) if node.id in wanted)

        wait_until(lambda: len(joined()) == len(wanted), self._clock, timeout_seconds=self._join_seconds)
        return joined()

    # -- shards

    def carve_all(self, shards: Sequence[Shard]) -> tuple[Carved, ...]:
        """Side by side over nodes (an agent boots one guest at a time); a failure stops only its own shard."""
        return tuple(side_by_side(self._carve, shards, at_once=PARALLEL_NODES))

    def _carve(self, shard: Shard) -> Carved:
        carved = self.boot_again(shard)
        if carved.failure:
            return carved
        try:
            self._map.set_state(shard.id, ShardState.READY, expected_epoch=shard.epoch)
        except ShardwrightError as problem:
            return Carved(shard=shard.id, failure=str(problem))
        return carved

    def boot_again(self, shard: Shard) -> Carved:
        """Have its guest up, where it is and with the disk it has; its first boot makes both. Idempotent.

        Where the node knows of a newer epoch, nothing is booted.
        """
        try:
            status = self._agents(shard.node).carve(self._request(shard))
            self._map.set_measured(shard.id, as_measured(shard.nominal, status.measured))
        except ShardwrightError as problem:
            return Carved(shard=shard.id, failure=str(problem))
        return Carved(shard=shard.id, boot_seconds=status.measured.boot_seconds)

    def _request(self, shard: Shard) -> CarveRequest:
        growth = self._growth_of(shard.pool)
        return CarveRequest(
            shard=shard.id,
            epoch=shard.epoch,
            resources=shard.nominal,
            address=f"{shard.address}/{OVERLAY_PREFIX}",
            mac=shard.mac,
            disk_mib=self._disk_mib,
            image=self._image_of(shard.pool),
            memory_grows_to_gib=growth.memory_gib,
            vcpus_grow_to=growth.vcpus,
        )

    def network_of(self, shard: Shard) -> NetworkMode:
        """How the shard is reached, as its node says. Raises ShardwrightError when it does not answer."""
        return self._agents(shard.node).shard(shard.id).network

    def release(self, shard: Shard) -> None:
        """Give a shard up, on its node and in the map. A node that is gone took its shards with it.

        Where a node that stays ours does not do it, for whatever reason, the shard is marked as given up and a round
        asks again: raises ProviderUnavailable, of the kind NotGivenUp where the node answers. Raises StaleEpoch, and
        nothing is given up, where the shard is not the one that the caller has read: it has just moved, or was made
        anew. The epoch makes that one act with the swap of a move: one of the two finds that it is too late.
        """
        self._map.set_state(shard.id, ShardState.RELEASED, expected_epoch=shard.epoch)
        node = self._map.node(shard.node)
        if node.state is not NodeState.GONE and node.agent_url is not None:
            try:
                self._agents(shard.node).release(shard.id, shard.epoch)
            except (NotFound, UnknownName, StaleEpoch):
                pass
            except ShardwrightError as problem:
                if node.state in _OURS:
                    if isinstance(problem, ProviderUnavailable):
                        raise
                    raise NotGivenUp(f"node {node.id} still has {shard.id}", why=str(problem)) from problem
        self._map.remove(shard.id, expected_epoch=shard.epoch)


def as_measured(nominal: Resources, measured: MeasuredPerformance) -> Resources:
    """The nominal vector with what the guest has counted put in: its memory less what its kernel takes, its reads."""
    found = {
        "memory_gib": None if measured.memory_mib is None else measured.memory_mib / 1024,
        "storage_iops": None if measured.read_iops is None else float(measured.read_iops),
        "network_mbps": measured.receive_mbps,
    }
    return nominal.model_copy(update={name: value for name, value in found.items() if value is not None})


def remaining(notice: ReclaimNotice, clock: Clock) -> timedelta:
    """How much of the notice is left."""
    return max(timedelta(0), notice.at - clock.now())
