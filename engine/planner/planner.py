"""plan(): from a demand distribution and a market to the cheapest purchases that keep the promised risk. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from engine.collection import collection_paused
from engine.errors import BudgetExceeded, ConfigurationError, NoOfferFits
from engine.model.capacity import CapacityTarget
from engine.model.ids import CellId, NodeId
from engine.model.market import Offer, Quote
from engine.model.money import Money
from engine.model.placement import Cell
from engine.model.plan import OfferRejection, Plan
from engine.planner.assembly import assemble_cells, plan_id
from engine.planner.candidates import find_candidates
from engine.planner.inventory import Inventory
from engine.planner.milp import in_stages_only
from engine.planner.move_gate import gate_for, share_of
from engine.planner.need import read_needs
from engine.planner.policy import PlanPolicy
from engine.planner.programme import (
    Choice,
    Programme,
    leaves_short,
    objective,
    reference_prices,
    running_nodes,
    standing,
)
from engine.planner.report import Explainer, cost_quantiles, judge_choice, pool_outcomes
from engine.planner.scenarios import Judgement
from engine.planner.screening import Screen
from engine.planner.solving import Solved, amended, best_choice, solve_or_explain

_ATTEMPTS = 4
"""Solutions in all: one is sent back where a move does not pass its gate or the scenarios break a promise."""
_NOISE = 2e-3
"""Coverage below the quantile by less than this is not sent back: scenarios are a sample."""


@collection_paused()
def plan(
    policy: PlanPolicy,
    targets: Sequence[CapacityTarget],
    inventory: Inventory,
    quotes: Sequence[Quote],
    offers: Sequence[Offer],
    rejections: Sequence[OfferRejection],
    parent: Plan | None,
    *,
    cells: Sequence[Cell],
    now: datetime,
    seed: int,
) -> Plan:
    """The next plan: what to buy on ``quotes``, what to keep of ``inventory``, what to give back.

    ``cells`` are the configured ones; the plan names those with nodes, and those that have or had some (from the
    inventory and ``parent``), so that they are emptied. Every offer gets a decision. Raises NoOfferFits (with the
    nearest miss) when a pool's desired shards cannot be had within the limits, BudgetExceeded (with by how much) when
    they could for more money, BadUsageData on broken demand paths, ConfigurationError on nodes in unknown cells.
    """
    known = {cell.id: cell for cell in (*(c.cell for c in (parent.cells if parent else ())), *cells)}
    _check_cells(inventory, known)
    needs = read_needs(policy, targets)
    screen = Screen(policy, needs, {cell.id: cell for cell in cells})
    stock = find_candidates(policy, needs, screen, quotes, now)
    running = running_nodes(policy, needs, inventory, frozenset(), now)
    programme = Programme(
        policy=policy,
        needs=needs,
        candidates=stock.candidates,
        reserve=stock.reserve,
        running=running,
        reference=reference_prices(needs, stock.candidates, running),
        margin=(0.0,) * len(needs.pools),
    )
    settled = _settle(programme, screen, offers, now=now, seed=seed)
    programme, choice = settled.programme, settled.solved.choice
    generation = parent.generation + 1 if parent is not None else 1
    made = assemble_cells(programme, choice, inventory, parent, known, generation)
    planned = [node for cell in made for node in cell.nodes]
    return Plan(
        id=plan_id(made, parent, generation, seed),
        parent=parent.id if parent is not None else None,
        generation=generation,
        made_at=now,
        cells=made,
        leaving=_leaving(inventory, {p.node.id for p in planned}),
        decisions=Explainer(programme, choice, screen, quotes, rejections, now).decisions(offers),
        rejections=tuple(rejections),
        pools=pool_outcomes(programme, choice, settled.judgement, targets),
        expected_hourly_cost=Money.total((p.node.hourly_price for p in planned), policy.currency),
        cost_quantiles=cost_quantiles(settled.judgement, policy.currency),
        solver=settled.solved.solver,
        gap=settled.solved.gap,
        solve_seconds=settled.solved.seconds,
    )


def _check_cells(inventory: Inventory, known: dict[CellId, Cell]) -> None:
    for item in inventory.nodes:
        if item.node.cell not in known:
            raise ConfigurationError(
                f"node {item.node.id} runs in {item.node.cell}, which no configured provider serves",
                why="its provider or region was removed from the configuration while it still had nodes",
                next_step="put the provider or region back into shardwright.toml",
            )


def _leaving(inventory: Inventory, planned: set[NodeId]) -> tuple[NodeId, ...]:
    return tuple(sorted(item.node.id for item in inventory.nodes if item.node.id not in planned))


@dataclass(frozen=True)
class _Settled:
    programme: Programme
    solved: Solved
    judgement: Judgement


def _settle(programme: Programme, screen: Screen, offers: Sequence[Offer], *, now: datetime, seed: int) -> _Settled:
    """Solve and judge; where a promise breaks or a move is not worth it, tell the programme so and solve again.

    The last solution stands, and the report says what it keeps.
    """
    solved = solve_or_explain(programme, screen, offers, seed=seed)
    settled = _Settled(programme, solved, judge_choice(programme, solved.choice, seed=seed))
    seconds = solved.seconds
    for _ in range(_ATTEMPTS - 1):
        corrected = _corrected(settled, now, left=programme.policy.time_limit_seconds - seconds)
        if corrected is None:
            break
        again = _solved_again(settled, corrected, screen, offers, seed=seed)
        if again is None:
            break
        solved = again
        seconds += solved.seconds
        settled = _Settled(corrected, solved, judge_choice(corrected, solved.choice, seed=seed))
    return replace(settled, solved=replace(settled.solved, seconds=seconds))


def _solved_again(
    settled: _Settled, corrected: Programme, screen: Screen, offers: Sequence[Offer], *, seed: int
) -> Solved | None:
    """None where what is asked in addition cannot be had."""
    before = settled.programme
    if in_stages_only(corrected) and corrected.running == before.running:
        more = {i for i, (one, other) in enumerate(zip(before.margin, corrected.margin, strict=True)) if one != other}
        mended = amended(before, corrected, replace(settled.solved, seconds=0.0), more)
        if corrected.reserve or (mended is not None and mended.gap <= corrected.policy.gap):
            return mended
        again = best_choice(corrected, seed=seed)
        if leaves_short(corrected, again.choice):
            return mended
        worse = mended is None or objective(corrected, again.choice) < objective(corrected, mended.choice)
        return again if worse or mended is None else replace(mended, seconds=again.seconds)
    try:
        return solve_or_explain(corrected, screen, offers, seed=seed)
    except (NoOfferFits, BudgetExceeded):
        return None


def _corrected(settled: _Settled, now: datetime, *, left: float) -> Programme | None:
    """None when nothing is left to correct. ``left``: seconds for the solver, of which it gets a tenth at least."""
    programme = settled.programme
    pinned = set(_not_worth_leaving(programme, settled.solved.choice, now))
    margin = tuple(_margins(settled))
    if not pinned and margin == programme.margin:
        return None
    running = tuple(
        replace(node, pinned=node.pinned or index in pinned) for index, node in enumerate(programme.running)
    )
    limit = min(programme.policy.time_limit_seconds, max(left, programme.policy.time_limit_seconds / 10))
    policy = programme.policy.model_copy(update={"time_limit_seconds": limit})
    return replace(programme, policy=policy, running=running, margin=margin)


def _margins(settled: _Settled) -> Iterator[float]:
    """Pools whose losses in pairs the programme did not see ask for more than their quantile."""
    programme = settled.programme
    exposed = standing(programme, settled.solved.choice).exposed
    for index, need in enumerate(programme.needs.pools):
        promised = min(need.risk.quantile, need.covered(need.desired))
        deficit = promised - (1 - float(settled.judgement.shortfall[index]))
        yield programme.margin[index] + (deficit if index in exposed and deficit > _NOISE else 0.0)


def _not_worth_leaving(programme: Programme, choice: Choice, now: datetime) -> Iterator[int]:
    """Nodes given up though moving a shard of theirs to where the choice puts it does not pass the gate."""
    policy = programme.policy
    for index, (node, kept) in enumerate(zip(programme.running, choice.kept, strict=True)):
        if kept or node.pinned or node.item.shards_in_use == 0:
            continue
        pools = {pool for pool, held in enumerate(node.held) if held}
        target = _cheapest_target(programme, choice, pools)
        if target is None:
            continue
        price, loss = target
        if not gate_for(policy, node.item, target_price=price, target_loss=loss, now=now).passes:
            yield index


def _cheapest_target(programme: Programme, choice: Choice, pools: set[int]) -> tuple[Money, float] | None:
    """(price per shard-hour, loss within the expected stay) of the place that ``propose_moves`` takes first: the one
    whose node is cheapest per shard, for nothing where that runs already. None where no shard moves.
    """
    policy, stay = programme.policy, programme.policy.moves.expected_stay_hours
    places = []
    for node, kept, added in zip(programme.running, choice.kept, choice.added, strict=True):
        if kept and any(added[pool] for pool in pools):
            each = share_of(node.item.node.hourly_price, sum(node.held) + sum(added))
            places.append((each, Money.zero(policy.currency), node.item.loss_within(stay, policy)))
    for unit in choice.bought:
        if any(unit.shards[pool] for pool in pools):
            chosen = programme.candidates[unit.candidate]
            each = share_of(chosen.quote.unit_price, sum(unit.shards))
            places.append((each, each, 1 - (1 - chosen.loss) ** (stay / programme.needs.hours)))
    first = min(places, key=lambda place: place[0].amount, default=None)
    return None if first is None else first[1:]
