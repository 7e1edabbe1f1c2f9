"""The steps of a round on the real parts. Each finds its own traces when it is run again; none makes a choice."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import Protocol

from engine import metrics
from engine.allocation.holds import HoldsReport, PlanHolds
from engine.carving import plan_carving
from engine.cell_updates import CellUpdates
from engine.clock import Clock
from engine.composition.composition import Composition
from engine.errors import (
    NoOfferFits,
    NotGivenUp,
    ProviderUnavailable,
    ShardwrightError,
    StaleEpoch,
    UnknownName,
)
from engine.events import Event, Observe
from engine.fleet.nodes import Fleet
from engine.inventory import JOINS_WITHIN, current_inventory
from engine.leaving import LeavingNodes, with_leaving
from engine.market.absence import require_a_market, with_missing_providers
from engine.market.agreements import Agreement, with_agreements
from engine.market.base import LiveMarket, Need, Strategy
from engine.market.beliefs import with_beliefs
from engine.market.discovery import MarketView, discover
from engine.market.negotiation import Negotiation, negotiate
from engine.market_watch import MarketWatch
from engine.migration.several import Moves
from engine.model.capacity import CapacityTarget, Pool, Resources
from engine.model.ids import MoveId, NodeId, OfferId, PlanId, PoolId, RoundId
from engine.model.market import OfferQuery
from engine.model.move import MoveReport, MoveRequest
from engine.model.placement import Cell, NodeState, Shard, ShardState
from engine.model.plan import MoveCause, Plan, PlannedNode
from engine.model.value import Interval, Utc
from engine.planner.inventory import Inventory
from engine.planner.move_gate import propose_moves
from engine.planner.parts import divide
from engine.planner.planner import plan as make_plan
from engine.planner.policy import PlanPolicy
from engine.planner.uses import uses_of
from engine.reconcile import CellFailure, CellResult
from engine.round_record import CarveReport, RoundRecord
from engine.store.plans import PlanStore
from engine.store.round_records import RoundRecords, StoredRound
from engine.store.shard_map import ShardMap
from providers.base import Provider

DISCOVERY_SECONDS = 30.0


class Demand(Protocol):
    def targets(self) -> tuple[CapacityTarget, ...]: ...


@dataclass(frozen=True)
class Terms:
    """What the configuration says about rounds."""

    policy: PlanPolicy
    pools: tuple[Pool, ...]
    cells: tuple[Cell, ...]
    term: timedelta
    seed: int
    agreements: tuple[Agreement, ...] = ()


@dataclass(frozen=True)
class ControlSteps:
    """``engine.rounds.RoundSteps``."""

    terms: Terms
    demand: Demand
    providers: Mapping[str, Provider]
    strategies: Sequence[Strategy]
    shard_map: ShardMap
    plans: PlanStore
    records: RoundRecords
    holds: PlanHolds
    updates: CellUpdates
    fleet: Fleet
    moves: Moves
    watch: MarketWatch
    composition: Composition
    moving: Callable[[], Collection[MoveRequest]]
    """Every move that has not come to its end, whoever asked for it."""
    clock: Clock
    observe: Observe

    def recover(self) -> None:
        """What a round that ended badly left half-way; only while none is under way.

        Holds are given back, or paid where paying had begun; nodes that are paid for are created by the next round, and
        those that turn out not to be are given up: no create of theirs could succeed, and each would fail their cell.
        """
        try:
            self.holds.recover()
        except ShardwrightError as problem:
            self._say("recover", f"{problem}; what is still held is looked at again before the next round")
        target = self.plans.target()
        for planned in () if target is None else _planned(target):
            if planned.quote is not None and self.holds.hold_of(planned.token) is not None:
                self.fleet.expect(planned.node)
        self._give_up_unpaid()

    def _give_up_unpaid(self) -> None:
        """Nodes that were entered while a provider was down, and whose plan's holds have lapsed since."""
        expected = self.shard_map.nodes(states=[NodeState.EXPECTED])
        unmade = [node.id for node in expected if node.instance_id is None]
        for planned in self.plans.bought(unmade):
            node_id = planned.node.id
            unpaid = self.holds.hold_of(planned.token) is None
            if unpaid and self.shard_map.change_state(node_id, NodeState.GONE, only_from=[NodeState.EXPECTED]):
                self._say("recover", f"{node_id} is given up: what its plan held lapsed before it was paid")

    def started(self, round_id: RoundId) -> Utc:
        return self.clock.now()

    def forecast(self, round_id: RoundId) -> tuple[CapacityTarget, ...]:
        self._say("forecast", f"round {round_id}: forecasting {len(self.terms.pools)} pools")
        targets = self.composition.with_replicas(self.demand.targets())
        metrics.observe_targets(targets)
        return targets

    def discover(self, targets: Sequence[CapacityTarget]) -> MarketView:
        need = OfferQuery(at_least=Resources.least([wanted.slice for wanted in self.composition.wanted(targets)]))
        posted = discover(list(self.providers.values()), need, clock=self.clock, timeout_seconds=DISCOVERY_SECONDS)
        view = with_beliefs(with_agreements(posted, self.terms.agreements), self.watch.beliefs())
        metrics.observe_market(view)
        by_provider = dict.fromkeys(self.providers, 0)
        for offer in view.offers:
            by_provider[offer.provider] += 1
        self._say(
            "discover",
            f"{len(view.offers)} offers: " + ", ".join(f"{name} {count}" for name, count in by_provider.items()),
            offers=by_provider,
            refused=len(view.rejections),
            failures=[f"{failure.provider}: {failure.reason}" for failure in view.failures],
        )
        for failure in view.failures:
            self._say("discover", f"the round goes on without {failure.provider}: {failure.reason}")
        scarce = [f"{offer.id}: {offer.belief}" for offer in view.offers if offer.belief is not None]
        if scarce:
            more = f" (and {len(scarce) - 1} more places; shardwright offers)" if len(scarce) > 1 else ""
            self._say("discover", scarce[0] + more, beliefs=scarce)
        require_a_market(view, len(self.providers))
        return view

    def negotiate(self, round_id: RoundId, targets: Sequence[CapacityTarget], view: MarketView) -> Negotiation:
        return self._negotiate(round_id, targets, view)

    def ask_anyway(self, round_id: RoundId, targets: Sequence[CapacityTarget], view: MarketView) -> Negotiation:
        """Under a key of its own: what was bid for fewer units under the round's would be answered as it was then."""
        self._say("negotiate", "what is believed to be left is too little: everything that is advertised is asked for")
        return self._negotiate(f"{round_id}:as-advertised", targets, view)

    def _negotiate(self, key: str, targets: Sequence[CapacityTarget], view: MarketView) -> Negotiation:
        now = self.clock.now()
        shards = self.composition.wanted(targets)
        need = Need(
            key=key,
            max_units=max(1, sum(wanted.count for wanted in shards)),
            shards=shards,
            term=Interval(start=now, end=now + self.terms.term),
            slice=Resources.least([wanted.slice for wanted in shards]),
            spot_substitutes=self.terms.policy.max_spot_share >= 1,
        )
        market = LiveMarket(providers=self.providers, clock=self.clock, rng=Random(key))  # noqa: S311
        uses = uses_of(self.terms.policy, targets, self._max_parts(targets), self.terms.cells)
        result = negotiate(view, need, self.strategies, market, uses=uses)
        counts: dict[str, int] = {}
        for quote in result.quotes:
            counts[quote.strategy] = counts.get(quote.strategy, 0) + 1
        self._say(
            "negotiate",
            f"{len(result.quotes)} firm quotes: " + ", ".join(f"{name} {n}" for name, n in sorted(counts.items())),
            quotes=dict(counts),
        )
        self.watch.quoted(key, result)
        return result

    def _max_parts(self, targets: Sequence[CapacityTarget]) -> dict[PoolId, int]:
        return {target.pool.id: self.composition.max_parts(target.pool.id) for target in targets}

    def decide(
        self,
        targets: Sequence[CapacityTarget],
        view: MarketView,
        negotiation: Negotiation,
        excluded: Sequence[OfferId],
    ) -> Plan:
        now = self.clock.now()
        quotes = [q for q in negotiation.quotes if q.offer.id not in excluded and q.expires_at > now]
        parent, inventory = self.plans.target(), self.inventory()
        for late in (item.node.id for item in inventory.nodes if item.overdue):
            minutes = JOINS_WITHIN.total_seconds() / 60
            self._say("decide", f"{late} has not joined for {minutes:.0f} minutes and is given back", node=late)
        most = self._max_parts(targets)
        divided = divide(self.terms.policy, targets, quotes, inventory, most, cells=self.terms.cells, now=now)
        for one in divided.parts:
            self._say("decide", f"{one.pool}: {one.reason}", pool=one.pool, parts=one.parts)
        try:
            plan = make_plan(
                self.terms.policy,
                divided.targets,
                inventory,
                quotes,
                view.offers,
                (*view.rejections, *negotiation.rejections),
                parent,
                cells=self.terms.cells,
                now=now,
                seed=self.terms.seed,
            )
        except NoOfferFits as error:
            raise with_missing_providers(error, targets, view.failures) from error
        plan = plan.model_copy(update={"parts": divided.parts})
        bought = [node for cell in plan.cells for node in cell.nodes if node.quote is not None]
        self._say(
            "decide",
            f"plan {plan.id}: buy {len(bought)}, give back {len(plan.leaving)}, "
            f"{plan.expected_hourly_cost} per hour ({plan.solver}, {plan.solve_seconds:.2f} s)",
            bought=[node.node.id for node in bought],
        )
        return plan

    def hold(self, plan: Plan) -> HoldsReport:
        report = self.holds.hold_all(plan)
        self.watch.held(plan, report)
        for provider in report.gone:
            self._say("hold", f"{provider} cannot be asked any more; the round goes on without what it offers")
        for refusal in report.refused:
            self._say("hold", f"{refusal.offer} cannot be held: {refusal.reason}")
        self._say("hold", f"{len(report.held)} holds", holds=len(report.held), refused=len(report.refused))
        return report

    def release(self, plan: Plan) -> None:
        """What stopped the round is what it raises, so a provider that cannot be asked now is only told of."""
        try:
            self.holds.release_all(plan.id)
        except ShardwrightError as problem:
            self._say("release", f"not all holds of plan {plan.id} are released; a later round tries again: {problem}")
            return
        self._say("release", f"the holds of plan {plan.id} are released")

    def gate(self, plan: Plan) -> None:
        self._say("gate", "the policy pack judges a preview of every cell")
        judgement = self.updates.judge(plan, self.fleet.user_data(plan))
        for finding in judgement.findings:
            self._say("gate", f"{finding.level}: {finding.policy}: {finding.message}")
        for cell in judgement.unseen:
            self._say("gate", f"{cell.what}; {cell.why}; nothing is bought there, and its nodes stay", failed=cell.kind)
        self._say("gate", "the policy pack lets the plan pass", advisory=len(judgement.findings))

    def adopt(self, plan: Plan) -> PlanId:
        adopted = self.plans.make_target(plan)
        metrics.observe_plan(plan)
        return adopted

    def confirm(self, plan: Plan) -> HoldsReport:
        report = self.holds.confirm_all(plan)
        self._say("confirm", f"{len(report.held)} reservations", reservations=len(report.held))
        return report

    def grow(self, plan: Plan) -> tuple[CellResult, ...]:
        self.composition.replace_unhealthy()
        for planned in _planned(plan):
            if planned.quote is not None:
                self.fleet.expect(planned.node)
        return self._update(with_leaving(self._with_purchases(plan), self.inventory()), "grow")

    def _with_purchases(self, plan: Plan) -> Plan:
        """Every node that is yet to be created carries what it was bought on, by this plan or by an earlier one: the
        quote, and the provider's hold, which the create uses up.
        """
        made = self._made(plan)
        missing = [planned.node.id for planned in _planned(plan) if planned.node.id not in made]
        quotes = {planned.node.id: planned.quote for planned in self.plans.bought(missing)}

        def as_bought(planned: PlannedNode) -> PlannedNode:
            if planned.node.id not in quotes:
                return planned
            hold = self.holds.hold_of(planned.token)
            reference = None if hold is None else hold.provider_reference
            return planned.model_copy(update={"quote": quotes[planned.node.id], "hold": reference})

        cells = tuple(
            cell.model_copy(update={"nodes": tuple(as_bought(planned) for planned in cell.nodes)})
            for cell in plan.cells
        )
        return plan.model_copy(update={"cells": cells})

    def _update(self, plan: Plan, attempt: str) -> tuple[CellResult, ...]:
        made = self._made(plan)
        results = self.updates.run(plan, self.fleet.user_data(plan))
        named = {planned.node.id for planned in _planned(plan)}
        for result in results:
            for node_id, instance_id in result.nodes:
                if node_id in named:  # a cell that failed still has those that it was to end
                    self.shard_map.update_node(node_id, instance_id=instance_id)
            if isinstance(result, CellFailure):
                self._say("reconcile", f"{result.what}; {result.why}", failed=result.kind)
                continue
            changes = result.changes
            self._say(
                "reconcile",
                f"{result.cell.id}: {changes.create} created, {changes.update} updated, {changes.delete} deleted, "
                f"{changes.same} unchanged in {result.seconds:.1f} s",
            )
        asked = [planned for planned in _planned(plan) if planned.node.id not in made]
        self.watch.created(plan, attempt, asked, results)
        self.watch.running()
        return results

    def inventory(self) -> Inventory:
        """What runs now."""
        beliefs, composed = self.watch.beliefs(), self.composition
        return current_inventory(
            self.shard_map, self.plans, beliefs, lost=composed.lost_nodes(), data=composed.storage.in_use(),
            types=composed.shard_types(), now=self.clock.now(),
        )  # fmt: skip

    def moves_off(self, plan: Plan) -> tuple[MoveRequest, ...]:
        joined = {node.id for node in self.fleet.wait_joined(self._there(plan))}
        there = _without(plan, {planned.node.id for planned in _planned(plan)} - joined)
        inventory = self.inventory()
        data = self.composition.storage.in_use()
        movable = [shard for shard in self.shard_map.search() if shard.id not in data]
        proposals = propose_moves(self.terms.policy, there, inventory, movable)
        requests = tuple(
            MoveRequest(
                id=MoveId(f"move-{proposal.shard}-g{plan.generation}"),
                shard=proposal.shard,
                source=proposal.source,
                destination=proposal.destination,
                cause=proposal.cause,
                gate=proposal.gate,
            )
            for proposal in proposals
            if proposal.cause is not MoveCause.RECLAIM  # the node's evacuation moves those, and is under way
        )
        for request in requests:
            facts = None if request.gate is None else request.gate.model_dump(mode="json")
            text = f"{request.shard} moves from {request.source} to {request.destination}"
            self._say("moves", text, gate=facts)
        return requests

    def move(self, requests: Sequence[MoveRequest]) -> tuple[MoveReport, ...]:
        return self.moves.run(requests)

    def carve(self, plan: Plan, targets: Sequence[CapacityTarget]) -> CarveReport:
        self._give_up(self.shard_map.search(state=ShardState.RELEASED))
        joined = {node.id for node in self.fleet.wait_joined(self._there(plan))}
        drained = self._drained()
        absent = sorted({planned.node.id for planned in _planned(plan)} - joined)
        problems = [
            f"{node_id} {'is drained' if node_id in drained else 'has not joined'}; its shards wait for the next round"
            for node_id in absent
        ]
        for problem in problems:
            self._say("carve", problem)
        nodes = [planned for planned in _planned(plan) if planned.node.id in joined]
        shards = self.shard_map.search()
        carving = plan_carving(nodes, shards)
        self._give_up([shard for shard in shards if shard.id in carving.surplus])
        types = self.composition.shard_types()
        unfinished = [shard for shard in shards if shard.id in carving.unfinished]
        asked = [(shard.id, shard.shard_type) for shard in unfinished] + [(n.id, n.shard_type) for n in carving.new]
        for shard_id, unknown in (one for one in asked if one[1] not in types):
            problems.append(f"{shard_id}: its type {unknown} is not configured any more")
            self._say("carve", problems[-1])
        fresh = [
            self.shard_map.add_shard(
                new.id,
                shard_type=new.shard_type,
                pool=new.pool,
                node=new.node,
                nominal=types[new.shard_type].resources,
            )
            for new in carving.new
            if new.shard_type in types
        ]
        known = [shard for shard in (*unfinished, *fresh) if shard.shard_type in types]
        problems += self._carve_all([shard for shard in known if not types[shard.shard_type].is_storage])
        problems += self.composition.create_disks(known)
        problems += self.composition.bind({target.pool.id: target.current for target in targets}, plan)
        return CarveReport(shards=self.shard_map.search(), problems=tuple(problems))

    def _give_up(self, shards: Sequence[Shard]) -> None:
        """Where a node is silent, the next round asks again: what was given up has its memory there until then."""
        silent: set[NodeId] = set()
        for shard in shards:
            try:
                if shard.node not in silent:
                    self.fleet.release(shard)
            except (UnknownName, StaleEpoch):
                continue  # somebody else has given it up, or has moved it
            except ProviderUnavailable as problem:
                if not isinstance(problem, NotGivenUp):
                    silent.add(shard.node)
                self._say("carve", f"{shard.id} is given up by a later round: {problem}")

    def _carve_all(self, shards: Sequence[Shard]) -> list[str]:
        """What went wrong."""
        problems = []
        for carved in self.fleet.carve_all(shards):
            if carved.failure:
                problems.append(f"{carved.shard}: {carved.failure}")
                self._say("carve", problems[-1])
            else:
                self._say("carve", f"{carved.shard} is ready", boot_seconds=carved.boot_seconds)
        return problems

    def to_close(self, plan: Plan) -> tuple[NodeId, ...]:
        self.composition.drains.wait_for(plan.leaving)
        return self.leaving.to_close(plan.leaving)

    def shrink(self, plan: Plan, undrained: Sequence[NodeId]) -> tuple[CellResult, ...]:
        """A node is given back only when nothing is bound to it any more, which is read again here.

        One that is being evacuated stays: a shard that has just been bound elsewhere may still be on its way.
        """
        gone = self.leaving.emptied(plan.leaving, undrained)
        stuck = set(plan.leaving) - set(gone)
        there = _without(self._with_purchases(plan), self.watch.denied_nodes() - self._made(plan))
        final = with_leaving(there.model_copy(update={"leaving": tuple(sorted(stuck))}), self.inventory())
        results = self._update(final, "shrink")
        failed = {result.cell.id for result in results if isinstance(result, CellFailure)}
        for node_id in gone:
            node = self.shard_map.node(node_id)
            if node.cell not in failed and self.leaving.given_back(node_id):
                self.shard_map.update_node(node_id, state=NodeState.GONE)
        return results

    @property
    def leaving(self) -> LeavingNodes:
        return LeavingNodes(self.shard_map, self.plans, self.holds, self.fleet, self.moving, self.observe)

    def record(self, record: RoundRecord) -> None:
        self.records.put(
            StoredRound(
                id=record.id,
                started_at=record.started_at,
                finished_at=record.finished_at,
                plan=record.plan.id,
                document=record.model_dump_json(),
            )
        )
        seconds = (record.finished_at - record.started_at).total_seconds()
        metrics.observe_round(seconds=seconds, ended_at=record.finished_at.timestamp())
        self.watch.forget()
        self._say("record", f"round {record.id} is done")

    def _there(self, plan: Plan) -> tuple[PlannedNode, ...]:
        """The planned nodes whose instance exists and may take shards; there is no use in waiting for the others."""
        there = self._made(plan) - self._drained()
        return tuple(planned for planned in _planned(plan) if planned.node.id in there)

    def _drained(self) -> frozenset[NodeId]:
        return frozenset(node.id for node in self.shard_map.nodes(states=[NodeState.DRAINING, NodeState.LEAVING]))

    def _made(self, plan: Plan) -> frozenset[NodeId]:
        """Of the plan's nodes those whose instance was created; the map knows every node that ever was."""
        there = self.shard_map.nodes(ids=[planned.node.id for planned in _planned(plan)])
        return frozenset(node.id for node in there if node.instance_id is not None)

    def _say(self, step: str, text: str, **facts: object) -> None:
        self.observe(Event.model_validate({"step": step, "text": text, "facts": facts}))


def _planned(plan: Plan) -> tuple[PlannedNode, ...]:
    return tuple(node for cell in plan.cells for node in cell.nodes)


def _without(plan: Plan, nodes: Collection[NodeId]) -> Plan:
    """What was denied is not asked for twice in one round."""
    cells = tuple(
        cell.model_copy(update={"nodes": tuple(one for one in cell.nodes if one.node.id not in nodes)})
        for cell in plan.cells
    )
    return plan.model_copy(update={"cells": cells})
