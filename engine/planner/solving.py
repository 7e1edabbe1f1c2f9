"""Solve the programme; where it cannot be met, say which pool, by how much, and what came nearest."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_UP, Decimal
from math import isfinite

from engine.errors import BudgetExceeded, NoOfferFits
from engine.model.market import Offer
from engine.model.money import Money
from engine.planner.greedy import greedy, serve_anew
from engine.planner.milp import in_stages_only, solve_programme
from engine.planner.programme import Choice, Programme, hourly_cost, leaves_short, objective, pool_cost, standing
from engine.planner.screening import Screen

_REFINEMENTS = 2


@dataclass(frozen=True)
class Solved:
    choice: Choice
    solver: str
    """``highs``, or ``greedy`` where the time limit left nothing better."""
    gap: float
    """Relative, to the solver's bound; for a greedy choice to a simple bound on what its shards cost at least."""
    seconds: float


def solve_or_explain(programme: Programme, screen: Screen, offers: Sequence[Offer], *, seed: int) -> Solved:
    """Raises NoOfferFits or BudgetExceeded when some pool's desired shards cannot be had."""
    solved = best_choice(programme, seed=seed)
    missing = leaves_short(programme, solved.choice)
    budget = programme.policy.hourly_budget
    overspent = budget is not None and hourly_cost(programme, solved.choice) > float(budget.amount) + 1e-9
    if budget is not None and (missing or overspent):
        free = replace(programme, policy=programme.policy.model_copy(update={"hourly_budget": None}))
        unlimited = best_choice(free, seed=seed)
        if not leaves_short(free, unlimited.choice):
            raise _over_budget(budget, hourly_cost(free, unlimited.choice))
    if missing:
        raise _no_offer_fits(programme, screen, offers, missing)
    return solved


def best_choice(programme: Programme, *, seed: int) -> Solved:
    """The solver's choice, or the greedy one where that is no worse within the same limits.

    The menu of risks (risk.py) is a guess at which groups are worth their risk. Once a solution shows which are, the
    programme is solved again from there, until that brings nothing or the time is up.
    """
    rough = greedy(programme)
    limit = programme.policy.time_limit_seconds
    if limit <= 0:
        return Solved(rough, "greedy", _simple_gap(programme, rough), 0.0)
    found = solve_programme(programme, seed=seed, rough=rough, time_limit=limit)
    if found.choice is None:
        return Solved(rough, "greedy", _simple_gap(programme, rough), found.seconds)
    choice, gap, seconds, solver = found.choice, found.gap, found.seconds, "highs"
    worth, rough_worth = objective(programme, choice), objective(programme, rough)
    if _within_budget(programme, rough) and rough_worth <= worth:
        gap = max(0.0, 1 - worth * (1 - gap) / rough_worth) if rough_worth > 0 else gap
        choice, solver = rough, "greedy" if in_stages_only(programme) else "highs"
    for _ in range(_REFINEMENTS):
        choice = _without_spare_units(programme, choice)
        if not programme.group_loss or seconds > limit / 2 or in_stages_only(programme):
            break
        again = solve_programme(programme, seed=seed, rough=choice, time_limit=limit - seconds, refine=True)
        seconds += again.seconds
        if again.choice is None or objective(programme, again.choice) >= objective(programme, choice) * (1 - 1e-9):
            break
        choice, gap = again.choice, again.gap
    return Solved(_worth_changing(programme, choice), solver, gap, seconds)


def amended(before: Programme, programme: Programme, solved: Solved, pools: Collection[int]) -> Solved | None:
    """The choice with these pools, of which the programme now asks more, served anew; None where they cannot be.

    For a large programme, where every pool's solution again would take as long as the first. Asking more makes no
    choice cheaper, so what the first solution's bound was still is one.
    """
    least = objective(before, solved.choice) * (1 - solved.gap)
    choice = _without_spare_units(programme, serve_anew(programme, solved.choice, pools))
    if leaves_short(programme, choice) or not _within_budget(programme, choice):
        return None
    if solved.solver == "greedy":
        return replace(solved, choice=choice, gap=_simple_gap(programme, choice))
    worth = objective(programme, choice)
    return replace(solved, choice=choice, gap=max(0.0, (worth - least) / max(abs(worth), 1e-12)))


def _worth_changing(programme: Programme, choice: Choice) -> Choice:
    """The choice, or to leave all as it is where that is as good within the solver's own gap: below it a difference
    may be the solver's noise, and nothing should be bought or given up for noise.
    """
    still = Choice(
        kept=(True,) * len(programme.running),
        added=((0,) * len(programme.needs.pools),) * len(programme.running),
        bought=(),
    )
    if not programme.running or not _within_budget(programme, still):
        return choice
    worth = objective(programme, choice)
    return still if objective(programme, still) <= worth + programme.policy.gap * abs(worth) else choice


def _without_spare_units(programme: Programme, choice: Choice) -> Choice:
    """A unit bought to make room for an exposure that was not taken up after all is one too many."""
    there = standing(programme, choice)
    shards = list(there.shards)
    exposed = {pool: dict(groups) for pool, groups in there.exposed.items()}
    costs = [pool_cost(programme, pool, shards[pool], there.groups(pool)) for pool in range(len(shards))]
    spare: set[int] = set()
    for position in sorted(
        range(len(choice.bought)), key=lambda i: -programme.candidates[choice.bought[i].candidate].score
    ):
        unit = choice.bought[position]
        chosen = programme.candidates[unit.candidate]
        lost = dict(unit.served)
        left = {
            pool: {g: n - count * (g == chosen.supply.group) for g, n in exposed.get(pool, {}).items()}
            for pool, count in lost.items()
        }
        after = {pool: pool_cost(programme, pool, shards[pool] - lost[pool], left[pool]) for pool in lost}
        if sum(after.values()) - sum(costs[pool] for pool in lost) < chosen.score:
            spare.add(position)
            for pool, count in lost.items():
                shards[pool] -= count
                exposed[pool], costs[pool] = left[pool], after[pool]
    return replace(choice, bought=tuple(unit for i, unit in enumerate(choice.bought) if i not in spare))


def _within_budget(programme: Programme, choice: Choice) -> bool:
    budget = programme.policy.hourly_budget
    return budget is None or hourly_cost(programme, choice) <= float(budget.amount) + 1e-9


def _simple_gap(programme: Programme, choice: Choice) -> float:
    """Against every desired shard at the cheapest price that its pool could pay at all."""
    cost = hourly_cost(programme, choice)
    least = sum(need.desired * price for need, price in zip(programme.needs.pools, programme.reference, strict=True))
    return max(0.0, 1 - least / cost) if cost > 0 else 0.0


def _over_budget(budget: Money, needed: float) -> BudgetExceeded:
    cost = Decimal(str(needed)).quantize(Decimal("0.000001"), rounding=ROUND_UP)
    over = Money(amount=cost - budget.amount, currency=budget.currency)
    return BudgetExceeded(
        f"the cheapest plan that meets every pool costs {cost} {budget.currency}/h, {over}/h over the budget",
        why=f"policy.hourly_budget is {budget}/h",
        next_step="raise policy.hourly_budget or lower a pool's risk class",
    )


def _no_offer_fits(
    programme: Programme, screen: Screen, offers: Sequence[Offer], missing: dict[int, int]
) -> NoOfferFits:
    pool, count = next(iter(missing.items()))
    need = programme.needs.pools[pool]
    others = f" (and {len(missing) - 1} more pools are short)" if len(missing) > 1 else ""
    return NoOfferFits(
        f"pool {need.id}: {count} of {need.desired} desired shards of {need.target.pool.shard_type.name} "
        f"cannot be had{others}",
        why=_nearest_miss(programme, screen, offers, pool),
        next_step="shardwright offers",
    )


def _nearest_miss(programme: Programme, screen: Screen, offers: Sequence[Offer], pool: int) -> str:
    fitting = [offer for offer in offers if pool in screen.fit(offer).pools]
    usable = [candidate for candidate in programme.candidates if pool in candidate.supply.pools]
    if usable:
        shape = programme.needs.pools[pool].shape
        providers = sorted({candidate.supply.provider for candidate in usable})
        carried = sum(candidate.most * candidate.slots[shape] for candidate in usable)
        return f"nearest miss: quotes carry up to {carried} of its shards, {_limits_told(programme, providers)}"
    if fitting:
        nearest = min(fitting, key=lambda offer: (offer.price.amount, offer.id))
        return f"nearest miss: {len(fitting)} offers fit it, none has a valid quote (cheapest: {nearest.id})"
    if not offers:
        return "no offers were seen"
    nearest = max(offers, key=lambda offer: (_closeness(screen, offer), offer.id))
    return f"nearest miss: {nearest.instance_type} at {nearest.provider} {nearest.region}: {screen.fit(nearest).reason}"


def _limits_told(programme: Programme, providers: Sequence[str]) -> str:
    limits = [(name, programme.provider_limit(name)) for name in providers]
    shares = ", ".join(f"{name} at most {limit}" for name, limit in limits if isfinite(limit))
    told = [f"{shares} shards in all"] if shares else []
    told += [f"{programme.spot_limit} on spot"] if isfinite(programme.spot_limit) else []
    return f"but the limits leave too few: {', '.join(told)}" if told else "too few beside what other pools take"


_NEARER_LAST = ("policy", "placement", "too small", "performance", "capacity")


def _closeness(screen: Screen, offer: Offer) -> tuple[int, float]:
    """How far an offer came through the checks, then how large it is."""
    kind = screen.fit(offer).reason.split(":", 1)[0]
    return (_NEARER_LAST.index(kind) if kind in _NEARER_LAST else -1, offer.resources.vcpus)
