"""Shardwright itself: the short-term forecaster, and the rolling planner that prices risk, learns supply and moves.

Learns from what the protocol tells and from nothing else. The same answers give the same orders.
"""

from collections.abc import Sequence

import numpy as np

from engine.model.market import PurchaseOption
from engine.planner.rolling.commitments import Committed, commitments_for
from engine.planner.rolling.offers import StepOffer
from engine.planner.rolling.placement import FleetStep, order_for
from engine.planner.rolling.shortfall_price import Allowance, PastFleet, price_shortfall
from engine.planner.rolling.sizing import Array, SupplyCurve, capacities, supply_curve
from engine.planner.rolling.supply import SpotEvents, SupplyBelief
from forecasting.analogs import PATHS, SHARP, SHORTEST, WIDE, AnalogPanel
from lab.policies.fleet_record import FleetRecord
from lab.wire import Commit, Init, InitOffer, Observe, Order

LOOK_BACK = 336
"""Moments of the past on which the price of shortfall is found."""
REPRICE_STEPS = 6
SAMPLES = 2 * PATHS
"""Of a fleet's demand."""
SURPRISE = 0.005
"""Share of them that meet a rise out of the fleet's largest tenth …"""
SURPRISE_DAYS = 28
"""… of so many days."""
RECLAIMS_KEPT = 200
SUPPOSED_RECLAIMS = (0.0, 0.02, 0.0, 0.05, 0.0)
"""Shares of spot lost in a step, beside those that were seen."""
SETTLE_STEPS = 4
"""Before commitments are bought: the depth of spot is seen first."""
COMMIT_STEPS = 24
LONGEST_LEAD = 6
WAYS = (SHARP, WIDE)
"""Of forecasting: each fleet uses the one that would have cost least."""


class Shardwright:
    """A ``lab.host.Policy``."""

    def start(self, init: Init) -> None:
        self._init = init
        self._step_hours = init.step_minutes / 60
        self._classes = sorted(init.risk_classes, key=lambda name: init.risk_classes[name].rank)
        self._panel = _panel(init)
        fleets = [FleetRecord.of(init, fleet.id, float(fleet.move_usd_per_shard)) for fleet in init.fleets]
        self._fleets = [fleet for fleet in fleets if len(fleet.rows) and any(not o.term for o in fleet.sold.values())]
        self._rng = np.random.default_rng(0)
        spot = {o.id: max(o.shards_per_unit.values()) for o in init.offers if o.option == "spot" and o.shards_per_unit}
        self._supply = SupplyBelief(self._step_hours, spot)
        self._prices: dict[str, float] = {}
        self._expected = 0.0
        self._expected_per_step = 0.0
        self._demanded = dict.fromkeys(self._classes, 0)
        self._short = dict.fromkeys(self._classes, 0)
        self._look_back()

    def answer(self, observe: Observe) -> Order:
        self._learn(observe)
        horizon = min(max((offer.lead for offer in self._init.offers), default=1), LONGEST_LEAD)
        paths = [self._paths(horizon, way) for way in range(len(WAYS))]
        curves: list[SupplyCurve] = []
        for fleet in self._fleets:
            fleet.samples = [self._samples(fleet, each) for each in paths]
            fleet.offers = self._offers(fleet, observe)
            held = [observe.held.get(fleet.id, {}).get(offer.id, 0) for offer in fleet.offers]
            curves.append(supply_curve(fleet.offers, held, fleet.move_cost))
        if observe.step < 0 or observe.step % REPRICE_STEPS == REPRICE_STEPS - 1:
            self._price_shortfall(observe.step, curves)
        self._expected += self._expected_per_step
        commits = self._commitments(observe, curves)
        targets, fallback = {}, {}
        for fleet in self._fleets:
            bought = [each for each in commits if each.fleet == fleet.id]
            made = order_for(self._fleet_step(fleet, observe, bought))
            targets[fleet.id], fallback[fleet.id] = made.targets, made.fallback
        return Order(step=observe.step, targets=targets, fallback=fallback, commit=tuple(commits))

    # --- learning

    def _look_back(self) -> None:
        """What would have been forecast over the recent past, beside what came."""
        steps = self._panel.steps
        first = max(steps - LOOK_BACK, 2 * self._panel.steps_per_day + 2, SHORTEST)
        for moment in range(min(first, steps), steps):
            if not self._panel.can_forecast(moment):
                continue
            paths = [self._panel.paths(1, views, origin=moment) for views in WAYS]
            for fleet in self._fleets:
                fleet.samples = [self._samples(fleet, each) for each in paths]
                fleet.remember(self._panel.values(moment)[:, 0], self._classes)

    def _learn(self, observe: Observe) -> None:
        if observe.step >= 0:
            self._learn_demand(observe)
        self._learn_supply(observe)

    def _learn_demand(self, observe: Observe) -> None:
        came = np.array([observe.demand.get(pool.id, 0) for pool in self._init.pools], dtype=np.float64)
        for pool in self._init.pools:
            demand = observe.demand.get(pool.id, 0)
            self._demanded[pool.risk] += demand
            self._short[pool.risk] += demand - observe.covered.get(pool.id, demand)
        for fleet in self._fleets:
            fleet.remember(came, self._classes)
        self._panel.append(came)

    def _learn_supply(self, observe: Observe) -> None:
        events: dict[str, SpotEvents] = {}
        for offer in self._init.offers:
            if offer.option == "spot":
                parts = (observe.held, observe.denied, observe.reclaimed)
                held, denied, gone = (sum(units.get(offer.id, 0) for units in part.values()) for part in parts)
                events[offer.id] = SpotEvents(held, denied, gone)
        self._supply.observe(observe.step, events)
        if observe.step < 0:
            return
        for fleet in self._fleets:
            held_units, gone_units = observe.held.get(fleet.id, {}), observe.reclaimed.get(fleet.id, {})
            fleet.see_delivered(observe.delivered.get(fleet.id, {}))
            held_shards = gone_shards = 0
            for name in {*held_units, *gone_units}:
                if name in events and name in fleet.sold:
                    size = fleet.sold[name].shards_per_unit[fleet.id]
                    held, gone = held_units.get(name, 0) * size, gone_units.get(name, 0) * size
                    self._supply.exposed(fleet.id, name, held=held, reclaimed=gone)
                    held_shards, gone_shards = held_shards + held, gone_shards + gone
            fleet.reclaimed.append(gone_shards / max(1, held_shards + gone_shards))

    # --- forecasting

    def _paths(self, horizon: int, way: int) -> Array:
        if self._panel.can_forecast(self._panel.steps):
            return self._panel.paths(horizon, WAYS[way])
        newest = self._panel.values(max(0, self._panel.steps - 1))
        guess = newest[:, -1] if newest.size else np.zeros(len(self._init.pools))
        spread = np.linspace(0.5, 2.0, PATHS)
        return np.broadcast_to(guess[:, None, None] * spread[None, :, None], (len(guess), PATHS, horizon))

    def _samples(self, fleet: FleetRecord, paths: Array) -> Array:
        """(horizon, SAMPLES) ascending: the sum of the fleet's pools, each drawn by itself, and some surprises."""
        horizon = paths.shape[2]
        total = np.zeros((SAMPLES, horizon))
        for row in fleet.rows:
            order = np.concatenate([self._rng.permutation(PATHS) for _ in range(SAMPLES // PATHS)])
            total += np.maximum(paths[row][order], 0.0)
        rises = self._rises(fleet)
        if len(rises):
            met = self._rng.integers(0, SAMPLES, max(1, round(SAMPLES * SURPRISE)))
            total[met] += self._rng.choice(rises, len(met))[:, None]
        return np.sort(total, axis=0).T

    def _rises(self, fleet: FleetRecord) -> Array:
        steps = self._panel.steps
        if steps - fleet.rises_at >= REPRICE_STEPS * 2 or fleet.rises_at < 0:
            span = SURPRISE_DAYS * self._panel.steps_per_day
            changes = np.diff(self._panel.values(max(0, steps - span))[fleet.rows], axis=1)
            up = np.sort(changes[changes > 0])
            fleet.rises, fleet.rises_at = up[int(len(up) * 0.9) :], steps
        return fleet.rises

    # --- deciding

    def _offers(self, fleet: FleetRecord, observe: Observe) -> tuple[StepOffer, ...]:
        return tuple(self._step_offer(fleet, offer, observe) for offer in fleet.sold.values())

    def _step_offer(self, fleet: FleetRecord, offer: InitOffer, observe: Observe) -> StepOffer:
        size = offer.shards_per_unit[fleet.id]
        spot = offer.option == "spot"
        price = observe.prices.get(offer.id) if spot else offer.price
        if price is None:
            price = offer.price_history[-1][1] if offer.price_history else offer.on_demand_price
        return StepOffer(
            id=offer.id,
            option=PurchaseOption(offer.option),
            cell=offer.cell,
            shards=size,
            lead=offer.lead,
            price=float(price) * self._step_hours / size,
            reclaim_rate=self._supply.reclaim_rate(fleet.id, offer.id) if spot else 0.0,
            free_units=self._supply.free_units(offer.id, observe.step, size) if spot else float("inf"),
            asked_lately=spot and self._supply.fresh(offer.id, observe.step),
            term=offer.term or 0,
        )

    def _price_shortfall(self, step: int, curves: Sequence[SupplyCurve]) -> None:
        past = [
            PastFleet(
                forecasts=tuple(np.array(each[-LOOK_BACK:]) for each in fleet.forecasts),
                demand=np.array(fleet.demand[-LOOK_BACK:]),
                lost=np.array(fleet.reclaimed[-LOOK_BACK:]),
                curve=curve,
                on_demand_price=fleet.on_demand_price(),
            )
            for fleet, curve in zip(self._fleets, curves, strict=True)
        ]
        if not all(len(each.demand) for each in past):
            self._prices = {fleet.id: 20 * fleet.on_demand_price() for fleet in self._fleets}
            return
        limits = self._init.risk_classes
        allowance = Allowance(
            overall_limit=self._init.max_shortfall,
            class_limits=tuple(limits[name].max_shortfall for name in self._classes),
            demanded=tuple(self._demanded.values()),
            short=tuple(self._short.values()),
            steps=self._init.steps,
            steps_left=self._init.steps - 1 - step,
        )
        found = price_shortfall(past, allowance, expected_so_far=self._expected)
        self._prices = {fleet.id: price for fleet, price in zip(self._fleets, found.prices, strict=True)}
        self._expected_per_step = found.expected
        for fleet, way in zip(self._fleets, found.ways, strict=True):
            fleet.way = way

    def _commitments(self, observe: Observe, curves: Sequence[SupplyCurve]) -> list[Commit]:
        since = observe.step - SETTLE_STEPS
        if since < 0 or since % COMMIT_STEPS:
            return []
        found = []
        for fleet, curve in zip(self._fleets, curves, strict=True):
            if not any(offer.term for offer in fleet.offers) or not fleet.demand:
                continue
            needed = capacities(np.array(fleet.forecasts[fleet.way][-LOOK_BACK:]), [self._prices[fleet.id]], curve)[0]
            running = [
                Committed(each.units * fleet.size(each.offer), each.until - observe.step)
                for each in observe.commitments
                if each.fleet == fleet.id
            ]
            left = self._init.steps - 1 - observe.step
            for each in commitments_for(fleet.offers, needed, curve, running, steps_left=left):
                found.append(Commit(fleet=fleet.id, offer=each.offer, units=each.units))
        return found

    def _fleet_step(self, fleet: FleetRecord, observe: Observe, bought: Sequence[Commit]) -> FleetStep:
        committed: dict[str, int] = {}
        running = [each for each in observe.commitments if each.fleet == fleet.id]
        units = [(each.offer, each.units) for each in running] + [(each.offer, each.units) for each in bought]
        for offer, count in units:
            cell = fleet.sold[offer].cell
            committed[cell] = committed.get(cell, 0) + count * fleet.size(offer)
        recent = np.sum(self._panel.values(max(0, self._panel.steps - self._panel.steps_per_day))[fleet.rows], axis=0)
        covered = sum(observe.covered.get(self._init.pools[row].id, 0) for row in fleet.rows)
        return FleetStep(
            offers=fleet.offers,
            demand=fleet.samples[fleet.way][0],
            later=fleet.samples[fleet.way][-1],
            reclaimed=np.array([*fleet.reclaimed[-RECLAIMS_KEPT:], *SUPPOSED_RECLAIMS]),
            recent=recent,
            load=covered,
            held=observe.held.get(fleet.id, {}),
            pending=observe.pending.get(fleet.id, {}),
            young=fleet.young(observe.held.get(fleet.id, {})),
            committed=committed,
            attached=observe.attached.get(fleet.id, {}),
            move_cost=fleet.move_cost,
            shortfall_price=self._prices[fleet.id],
            steps_left=self._init.steps - 1 - observe.step,
            first=observe.step < 0,
        )


def _panel(init: Init) -> AnalogPanel:
    length = min((len(pool.history) for pool in init.pools), default=0)
    rows = [pool.history[len(pool.history) - length :] for pool in init.pools]
    per_day = max(1, round(24 * 60 / init.step_minutes))
    return AnalogPanel(np.array(rows, dtype=np.float64).reshape(len(init.pools), length), per_day)
