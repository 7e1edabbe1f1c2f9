"""A node with four shards is taken back, over a slow link: does everything get out within the notice?

Each time the next node is attached, the link of the one that is left is shaped, and the real evacuation runs from a
notice of thirty seconds. The guests go on from node to node; a client keeps one connection to one of them.
"""

import json
import time
from datetime import timedelta

from dbos import DBOS

from agent.image import read_records
from agent.wire import GuestState
from benchmarks.bars import Bar, percentile, tell
from benchmarks.move_pairs import fill, ms, witnessed_fleet
from engine.composition.leaving import Drains
from engine.composition.storage import Storage
from engine.evacuation.workflow import EvacuationContext, configure, start_evacuation
from engine.fleet.nodes import Fleet
from engine.fleet.user_data import UserDataSettings
from engine.migration.several import Moves
from engine.migration.workflow import DurableMover
from engine.model.ids import NodeId, ShardId
from engine.model.market import ReclaimNotice
from engine.model.move import MovePhase
from engine.model.placement import NodeState, ShardState
from engine.model.value import Value
from engine.store.attachments import Attachments
from engine.store.moves import MoveHistory
from providers.sandbox import netns
from tests.durable_moves import durable_mover
from tests.links import slow
from tests.small_fleet import SmallFleet

SHARDS, LINK_MBPS, NOTICE_SECONDS = 4, 200.0, 30.0


class Run(Value):
    out: int
    """Shards that run elsewhere, in time."""
    last_out: float
    """Seconds from the notice until the last move had committed and cleaned up."""
    downtimes: tuple[float, ...]
    strategies: tuple[str, ...]
    megabytes: float
    """That went over the link of the node that is left, all told: QEMU's own sums count blocks that are not in use."""


class Evacuations:
    def __init__(self, fleet: SmallFleet, mover: DurableMover) -> None:
        self._fleet = fleet

        def settings(_provider: str) -> UserDataSettings:
            raise NotImplementedError("nothing is bought here")

        giving = Fleet(
            shard_map=fleet.shard_map, tokens=fleet.tokens, agents=fleet.clients, clock=fleet.clock,
            settings_for=settings,
        )  # fmt: skip
        configure(
            EvacuationContext(
                shard_map=fleet.shard_map,
                fleet=giving,
                moves=Moves(
                    mover, lambda _event: None, clock=fleet.clock, keep=MoveHistory(fleet.database).put,
                    announce=lambda _all, _by: None,
                ),
                placements={},
                ranks={},
                observe=lambda event: tell(event.text),
                give_back=lambda _node: None,
                clock=fleet.clock,
                under_way=MoveHistory(fleet.database).under_way,
                unsettled=MoveHistory(fleet.database).unsettled,
                drains=Drains(fleet.shard_map, {}, fleet.clock, giving),
                storage=Storage(fleet.shard_map, Attachments(fleet.database), fleet.clients, {}),
            )
        )  # fmt: skip

    def carve(self, node: str, *, full: bool) -> None:
        """``full``: with every block of the disks in use."""
        for number in range(SHARDS):
            shard, status = self._fleet.carve(f"e{number}", node)
            self._fleet.shard_map.set_state(shard.id, ShardState.BOUND)
            if full:
                fill(self._fleet.disk(node, shard.id), status.disk_mib)

    def run(self, leaving: str, to: str) -> Run:
        fleet = self._fleet
        fleet.add_node(to)
        slow(fleet, leaving, LINK_MBPS)
        sent = self._sent_bytes(leaving)
        began = fleet.clock.now()
        at = began + timedelta(seconds=NOTICE_SECONDS)
        fleet.shard_map.update_node(NodeId(leaving), state=NodeState.RECLAIMING)
        notice = ReclaimNotice(node=NodeId(leaving), provider="test", seen_at=began, at=at)
        reports = start_evacuation(notice).get_result()
        sent = self._sent_bytes(leaving) - sent
        running = [one.state is GuestState.RUNNING for one in fleet.clients(NodeId(to)).status().shards]
        fleet.remove_node(leaving)
        return Run(
            out=min(sum(running), sum(one.phase is MovePhase.CLEANED and one.finished_at <= at for one in reports)),
            last_out=max((report.finished_at - began).total_seconds() for report in reports),
            downtimes=tuple(report.downtime_seconds for report in reports),
            strategies=tuple(report.strategy for report in reports),
            megabytes=sent / 1e6,
        )

    def _sent_bytes(self, node: str) -> int:
        namespace = self._fleet.attachments[node].namespace
        said = json.loads(netns.query("-n", namespace, "-s", "-j", "link", "show", "eth0"))
        return int(said[0]["stats64"]["tx"]["bytes"])


def measure(count: int, *, full: bool) -> Bar:
    runs: list[Run] = []
    with witnessed_fleet(("n0",)) as (fleet, _witness), durable_mover(fleet) as mover:
        evacuations = Evacuations(fleet, mover)
        evacuations.carve("n0", full=full)
        client = fleet.start_client(fleet.shard_map.get(ShardId("e0")), seconds=7200, every=0.02)
        client.wait_for_records(20)
        for number in range(count):
            runs.append(evacuations.run(f"n{number}", f"n{number + 1}"))
            tell(f"evacuation {number + 1} of {count}: {runs[-1]}")
            time.sleep(1.0)
        summary = client.finish()
        stored = read_records(fleet.disk(f"n{count}", "e0"))
        DBOS.destroy()
    done = sum(run.out == SHARDS for run in runs)
    out = [run.last_out for run in runs]
    lost, doubled = summary.acked - len(set(stored)), len(stored) - len(set(stored))
    disks = "with every block in use" if full else "as the workload has filled them"
    return Bar(
        what=f"evacuation of a {SHARDS}-shard node within a {NOTICE_SECONDS:.0f} s notice, link shaped to "
        f"{LINK_MBPS:.0f} Mbit/s, disks of 64 MiB {disks}",
        bar=f"all out, {count} of {count}",
        measured=f"{done} of {count}; the last was out after {percentile(out, 0.5):.1f} s (median), {max(out):.1f} s "
        f"(longest); {percentile([run.megabytes for run in runs], 0.5):.0f} MB each; downtime p50 "
        f"{ms(percentile([one for run in runs for one in run.downtimes], 0.5))} ms; of {summary.acked} records "
        f"{lost} lost, {doubled} doubled",
        reached=done == count and not (lost or doubled or summary.error),
        figures={"runs": [run.model_dump() for run in runs]},
    )
