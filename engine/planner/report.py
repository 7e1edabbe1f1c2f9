"""The plan's account of itself: what each pool is given at what risk, why each offer or why not, cost quantiles."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import cached_property
from math import isfinite

import numpy as np

from engine.model.capacity import CapacityTarget
from engine.model.ids import OfferId, PoolId
from engine.model.market import Offer, PurchaseOption, Quote
from engine.model.money import Money
from engine.model.plan import OfferDecision, OfferRejection, PoolOutcome, Verdict
from engine.planner.candidates import Candidate, lost_together
from engine.planner.programme import (
    Choice,
    Programme,
    Standing,
    cheapest_offers,
    hourly_cost,
    quantile_kept,
    standing,
)
from engine.planner.scenarios import Holding, Judgement, judge, sample_scenarios
from engine.planner.screening import Screen, quote_refused

COST_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_SHOWN = Decimal("0.000001")
_LOSS_DRAWS = 4096
"""Of what is reclaimed, spread over the demand paths: in 64 draws alone a group that one horizon in 500 loses would be
lost once or never, and it would be chance which promises break.
"""


def holdings_of(programme: Programme, choice: Choice) -> tuple[Holding, ...]:
    kept = [
        Holding(
            shards=tuple(held + new for held, new in zip(node.held, added, strict=True)),
            hourly_price=node.price,
            group=node.supply.group,
            loss=node.loss,
        )
        for node, stays, added in zip(programme.running, choice.kept, choice.added, strict=True)
        if stays
    ]
    bought = [
        Holding(shards=unit.shards, hourly_price=chosen.price, group=chosen.supply.group, loss=chosen.loss)
        for unit in choice.bought
        for chosen in (programme.candidates[unit.candidate],)
    ]
    return (*kept, *bought)


def judge_choice(programme: Programme, choice: Choice, *, seed: int) -> Judgement:
    holdings = holdings_of(programme, choice)
    groups = sorted({holding.group for holding in holdings if holding.group is not None})
    count = max(programme.policy.scenarios, _LOSS_DRAWS if groups else 0)
    scenarios = sample_scenarios(programme.needs, groups, count=count, seed=seed)
    return judge(programme.needs, scenarios, holdings, recourse_prices(programme))


def recourse_prices(programme: Programme) -> tuple[float, ...]:
    """Per pool, a shard-hour bought in a hurry: the cheapest lasting one on offer, else the dearest known."""
    lasting = cheapest_offers(programme.needs, [c for c in programme.candidates if c.supply.group is None])
    return tuple(price if isfinite(price) else _dearest_offer(programme, pool) for pool, price in enumerate(lasting))


def _dearest_offer(programme: Programme, pool: int) -> float:
    shape = programme.needs.pools[pool].shape
    offered = (c.price / c.slots[shape] for c in programme.candidates if c.slots[shape] and pool in c.supply.pools)
    return max(offered, default=programme.reference[pool])


def pool_outcomes(
    programme: Programme, choice: Choice, judgement: Judgement, targets: Sequence[CapacityTarget]
) -> tuple[PoolOutcome, ...]:
    there = standing(programme, choice)
    ages = {target.pool.id: target.history_age for target in targets}
    return tuple(
        PoolOutcome(
            pool=PoolId(need.id),
            desired=need.desired,
            planned=there.shards[index],
            quantile_met=round(1 - float(judgement.shortfall[index]), 9),
            shortfall_probability=round(float(judgement.shortfall[index]), 9),
            expected_shortfall_share=round(min(1.0, float(judgement.unserved[index])), 9),
            history_age=ages.get(PoolId(need.id)),
        )
        for index, need in enumerate(programme.needs.pools)
    )


def cost_quantiles(judgement: Judgement, currency: str) -> tuple[tuple[float, Money], ...]:
    values = np.quantile(judgement.costs, COST_QUANTILES)
    return tuple(
        (q, Money(amount=Decimal(str(float(value))).quantize(_SHOWN), currency=currency))
        for q, value in zip(COST_QUANTILES, values, strict=True)
    )


@dataclass(frozen=True)
class _Served:
    """Of the pools that an offer fits."""

    shapes: tuple[int, ...]
    dearest: tuple[tuple[int, tuple[float, int]], ...]
    """(shape, (what the plan pays per shard-hour at most, for which pool))"""
    newly: bool
    """Whether any of them gets shards on new units."""


@dataclass(frozen=True)
class Explainer:
    """Says of each offer why it was taken, or why not."""

    programme: Programme
    choice: Choice
    screen: Screen
    quotes: Sequence[Quote]
    rejections: Sequence[OfferRejection]
    now: datetime

    def decisions(self, offers: Sequence[Offer]) -> tuple[OfferDecision, ...]:
        """Chosen offers first, then by price per shard-hour; offers that carry nothing last."""
        units = self._units()
        quotes: dict[OfferId, list[Quote]] = {}
        for quote in self.quotes:
            quotes.setdefault(quote.offer.id, []).append(quote)
        seen = {offer.id: offer for offer in (*(q.offer for q in self.quotes), *offers)}
        rejected = {rejection.offer: rejection.reason for rejection in self.rejections}
        limits = self._binding_limits()
        made = [
            self._decision(offer, units.get(offer.id, []), quotes.get(offer.id, []), rejected, limits)
            for offer in seen.values()
        ]
        return tuple(sorted(made, key=_table_order))

    @cached_property
    def _standing(self) -> Standing:
        return standing(self.programme, self.choice)

    @cached_property
    def _spent(self) -> float:
        return hourly_cost(self.programme, self.choice)

    @cached_property
    def _bought_for(self) -> frozenset[int]:
        """Pools that get shards on new units."""
        return frozenset(pool for unit in self.choice.bought for pool, _ in unit.served)

    @cached_property
    def _seen(self) -> dict[int, _Served]:
        return {}

    def _served(self, pools: tuple[int, ...]) -> _Served:
        """Offers that fit the same pools are many: what is the same for all of them is found once."""
        known = id(pools)  # the screen gives equal pools as one and the same tuple, and keeps it
        if known not in self._seen:
            dearest: dict[int, tuple[float, int]] = {}
            for pool in pools:
                paid, shape = self._paid[pool], self.programme.needs.pools[pool].shape
                if paid is not None and (shape not in dearest or paid > dearest[shape][0]):
                    dearest[shape] = (paid, pool)
            self._seen[known] = _Served(
                shapes=tuple(sorted({self.programme.needs.pools[pool].shape for pool in pools})),
                dearest=tuple(dearest.items()),
                newly=any(pool in self._bought_for for pool in pools),
            )
        return self._seen[known]

    def _units(self) -> dict[OfferId, list[Candidate]]:
        found: dict[OfferId, list[Candidate]] = {}
        for unit in self.choice.bought:
            candidate = self.programme.candidates[unit.candidate]
            found.setdefault(candidate.quote.offer.id, []).append(candidate)
        return found

    @cached_property
    def _paid(self) -> tuple[float | None, ...]:
        """Per pool, the dearest price per shard-hour that the plan pays."""
        dearest: list[float | None] = [None] * len(self.programme.needs.pools)
        for holding in holdings_of(self.programme, self.choice):
            each = holding.hourly_price / max(1, sum(holding.shards))
            for pool, count in enumerate(holding.shards):
                if count:
                    dearest[pool] = max(each, dearest[pool] or 0.0)
        return tuple(dearest)

    def _binding_limits(self) -> dict[str, str]:
        """Provider name, ``spot`` and ``budget`` -> the sentence, for limits that leave no room."""
        programme = self.programme
        by_provider: dict[str, int] = {}
        spot = 0
        kept = [n.supply for n, stays in zip(programme.running, self.choice.kept, strict=True) if stays]
        supplies = (*kept, *(programme.candidates[unit.candidate].supply for unit in self.choice.bought))
        for supply, holding in zip(supplies, holdings_of(programme, self.choice), strict=True):
            count = sum(holding.shards)
            by_provider[supply.provider] = by_provider.get(supply.provider, 0) + count
            spot += count * supply.spot
        desired = max(1, programme.needs.desired)
        full = {
            provider: f"concentration: {provider} already at {count / desired:.0%} of the shards, limit "
            f"{programme.policy.max_provider_share:.0%}"
            for provider, count in by_provider.items()
            if count >= programme.provider_limit(provider)
        }
        if spot >= programme.spot_limit:
            full[" spot"] = (
                f"spot share: already at {spot / desired:.0%} of the shards, "
                f"limit {programme.policy.max_spot_share:.0%}"
            )
        return full

    def _decision(
        self,
        offer: Offer,
        taken: Sequence[Candidate],
        quotes: Sequence[Quote],
        rejected: dict[OfferId, str],
        limits: dict[str, str],
    ) -> OfferDecision:
        fit = self.screen.fit(offer)
        valid = [quote for quote in quotes if not quote_refused(quote, self.programme.policy, self.now)]
        price = min((quote.unit_price for quote in valid), key=lambda money: money.amount, default=offer.price)
        carries = max((fit.slots[shape] for shape in self._served(fit.pools).shapes), default=0)
        per_shard = None
        if carries:
            # Of checked values, once per offer of a large market: not checked again.
            per_shard = Money.model_construct(amount=(price.amount / carries).quantize(_SHOWN), currency=price.currency)
        if taken:
            strategies = ", ".join(sorted({candidate.quote.strategy for candidate in taken}))
            reason = f"{len(taken)} unit(s) at {taken[0].quote.unit_price}/h by {strategies}"
        elif offer.id in rejected:
            reason = rejected[offer.id]
        elif not fit.pools:
            reason = fit.reason
        else:
            reason = self._why_not(offer, quotes, valid, float(price.amount), limits)
        if offer.belief is not None and offer.id not in rejected:
            reason = f"{reason}; {offer.belief}"
        return OfferDecision.model_construct(
            offer=offer.model_copy(update={"price_history": ()}) if offer.price_history else offer,
            verdict=Verdict.CHOSEN if taken else Verdict.WHY_NOT,
            units=len(taken),
            reason=reason,
            price_per_shard_hour=per_shard,
        )

    def _why_not(
        self,
        offer: Offer,
        quotes: Sequence[Quote],
        valid: Sequence[Quote],
        price: float,
        limits: dict[str, str],
    ) -> str:
        """The offer fits somewhere. First what the price says, then what else stood against it."""
        fit = self.screen.fit(offer)
        served = self._served(fit.pools)
        if not served.dearest:
            return "not needed: no pool that it fits needs anything"
        shape, (paid, pool) = min(served.dearest, key=lambda item: price / fit.slots[item[0]] - item[1][0])
        each = price / fit.slots[shape]
        if each >= paid - 1e-12:
            return f"dearer: {each:.6g} per shard-hour against {paid:.6g}"
        if quotes and not valid:
            return quote_refused(quotes[0], self.programme.policy, self.now)
        if not quotes:
            return "no quote: it was not negotiated, or the provider gave no firm price"
        if not served.newly:
            return "churn: what already runs is enough, and this is not cheaper by enough to move"
        if offer.option is PurchaseOption.SPOT and " spot" in limits:
            return limits[" spot"]
        if offer.provider in limits:
            return limits[offer.provider]
        return self._finer(offer, valid[0], pool, each)

    def _finer(self, offer: Offer, quote: Quote, pool: int, each: float) -> str:
        programme, need = self.programme, self.programme.needs.pools[pool]
        if quote.survival < 1:
            spot = offer.option is PurchaseOption.SPOT
            group = lost_together(offer.reliability.correlation_group, spot=spot)
            loss = programme.group_loss.get(group, 1 - quote.survival)
            there = self._standing
            kept = quantile_kept(programme, pool, there.shards[pool], there.groups(pool))
            slack = kept - programme.asked_quantile(pool)
            if loss > slack:
                own = offer.reliability.own
                seen = f" ({own})" if own is not None else ""
                return (
                    f"risk: {loss:.1%} probability of losing it within the horizon{seen}, "
                    f"{max(0.0, slack):.1%} left to {need.risk.name}'s {need.risk.quantile:g} quantile"
                )
        budget = programme.policy.hourly_budget
        spent = self._spent
        if budget is not None and spent + float(quote.unit_price.amount) > float(budget.amount):
            return f"budget: {spent:.6g} of {budget} an hour is already spent"
        carries = self.screen.fit(offer).slots[need.shape]
        return f"packing: {each:.6g} per shard-hour only with all {carries} shards of a unit in use"


def _table_order(decision: OfferDecision) -> tuple[bool, bool, Decimal, str]:
    each = decision.price_per_shard_hour
    return (
        decision.verdict is not Verdict.CHOSEN,
        each is None,
        each.amount if each is not None else Decimal(0),
        decision.offer.id,
    )
