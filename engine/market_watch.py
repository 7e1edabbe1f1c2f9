"""What rounds see of the market, kept; and what is believed because of it. Everything may be told again."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from engine.allocation.holds import HoldsReport
from engine.clock import Clock
from engine.market.beliefs import RUNS, Beliefs, beliefs_of, nodes_denied, units_of_ours
from engine.market.depth import MEMORY
from engine.market.negotiation import Negotiation
from engine.market.observations import Answer, AnswerKind, Stay
from engine.model.ids import NodeId
from engine.model.market import Place, ReclaimNotice
from engine.model.placement import Node
from engine.model.plan import Plan, PlannedNode
from engine.reconcile import CellFailure, CellResult
from engine.store.market_memory import MarketMemory
from engine.store.plans import PlanStore
from engine.store.shard_map import ShardMap

KEPT = timedelta(days=90)
"""For how long answers and stays are remembered."""


@dataclass(frozen=True)
class MarketWatch:
    memory: MarketMemory
    shard_map: ShardMap
    plans: PlanStore
    clock: Clock

    def beliefs(self) -> Beliefs:
        now = self.clock.now()
        return beliefs_of(self.memory.answers(since=now - MEMORY), self.memory.stays(), self._there(), now)

    def denied_nodes(self) -> frozenset[NodeId]:
        """Nodes whose creation was denied lately."""
        return nodes_denied(self.memory.answers(since=self.clock.now() - MEMORY))

    def quoted(self, key: str, negotiation: Negotiation) -> None:
        """What was denied while prices were asked for under ``key``."""
        if not negotiation.denied:
            return
        ours = self._ours()
        self.memory.answered(
            [
                Answer(
                    event=f"quote:{key}",
                    place=denied.place,
                    kind=AnswerKind.QUOTE,
                    at=self.clock.now(),
                    asked=denied.units,
                    denied=denied.units,
                    held=ours.get(denied.place, 0),
                )
                for denied in negotiation.denied
            ]
        )

    def held(self, plan: Plan, report: HoldsReport) -> None:
        """What was denied while the plan's purchases were held; those of other nodes there were granted, but for those
        that were refused for another reason, from which nothing is learned.
        """
        denied = {refusal.node for refusal in report.refused if refusal.denied}
        unanswered = {refusal.node for refusal in report.refused if not refusal.denied}
        if not denied:
            return
        bought = [node for cell in plan.cells for node in cell.nodes if node.quote is not None]
        wanted = _by_place(node for node in bought if node.node.id not in unanswered)
        ours = self._ours()
        found = []
        for place, nodes in wanted.items():
            count = sum(node.node.id in denied for node in nodes)
            if count:
                found.append(
                    Answer(
                        event=f"hold:{plan.id}",
                        place=place,
                        kind=AnswerKind.HOLD,
                        at=self.clock.now(),
                        asked=len(nodes),
                        denied=count,
                        held=ours.get(place, 0) + len(nodes) - count,
                    )
                )
        self.memory.answered(found)

    def created(self, plan: Plan, attempt: str, asked: Iterable[PlannedNode], results: Sequence[CellResult]) -> None:
        """What came of creating these nodes. Of a cell that failed only the denials are learned: what else was asked of
        it may not have been tried at all.
        """
        failures = [result for result in results if isinstance(result, CellFailure)]
        denied = frozenset(node for failure in failures for node in failure.denied)
        failed = {failure.cell.id for failure in failures}
        ours = self._ours(denied)
        found = []
        for place, nodes in _by_place(asked).items():
            refused = tuple(sorted(planned.node.id for planned in nodes if planned.node.id in denied))
            if refused or place.cell not in failed:
                found.append(
                    Answer(
                        event=f"create:{plan.id}:{attempt}",
                        place=place,
                        kind=AnswerKind.CREATE,
                        at=self.clock.now(),
                        asked=len(nodes),
                        denied=len(refused),
                        held=ours.get(place, 0),
                        denied_nodes=refused,
                    )
                )
        self.memory.answered(found)

    def running(self) -> None:
        """Who runs now: node-hours are counted from one look to the next."""
        there = [node for node in self._there() if node.instance_id is not None]
        self.memory.stayed(self._stays(there, self.clock.now()))

    def taken_back(self, notice: ReclaimNotice) -> None:
        """A node's provider takes it back: what is left of its place is all there is. The node is marked already."""
        node = self.shard_map.node(notice.node)
        at = min(notice.seen_at, self.clock.now())
        self.memory.stayed([stay.model_copy(update={"reclaimed": True}) for stay in self._stays([node], at)])
        left = Answer(
            event=f"reclaim:{node.id}",
            place=node.place,
            kind=AnswerKind.RECLAIM,
            at=at,
            asked=0,
            denied=0,
            held=self._ours().get(node.place, 0),
        )
        self.memory.answered([left])

    def forget(self) -> None:
        self.memory.forget(before=self.clock.now() - KEPT)

    def _ours(self, denied: frozenset[NodeId] = frozenset()) -> Mapping[Place, int]:
        """Units that run or are on their way, but for those whose creation was denied, now or lately."""
        return units_of_ours(self._there(), denied | self.denied_nodes())

    def _there(self) -> tuple[Node, ...]:
        """That run or are on their way; not those that are gone, of which there are ever more."""
        return self.shard_map.nodes(states=RUNS)

    def _stays(self, nodes: Sequence[Node], at: datetime) -> list[Stay]:
        """Seen at one moment; nodes that no plan of ours bought are left out."""
        bought = {planned.node.id: planned.quote for planned in self.plans.bought([node.id for node in nodes])}
        return [
            Stay(
                node=node.id,
                place=node.place,
                correlation_group=quote.offer.reliability.correlation_group,
                since=at,
                until=at,
            )
            for node in nodes
            if (quote := bought.get(node.id)) is not None
        ]


def _by_place(planned: Iterable[PlannedNode]) -> dict[Place, list[PlannedNode]]:
    found: dict[Place, list[PlannedNode]] = {}
    for one in planned:
        found.setdefault(one.node.place, []).append(one)
    return found
