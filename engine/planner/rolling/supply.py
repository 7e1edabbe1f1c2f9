"""What the market does not publish, learned by asking: how much spot there is, and how much of it is taken back."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median

from engine.market.depth import drifted
from engine.market.reclaim_rate import shrunk_rate

UNKNOWN_SHARDS = 24.0
"""Believed depth of an offer that was never asked for, until four others are known."""
FORGET_STEPS = 24.0
"""A depth seen so long ago counts 1/e; the offer's own average takes its place."""
FRESH_STEPS = 2
PRIOR_RATE_HOUR = 0.01
"""Share of spot that is reclaimed in an hour, before anything was seen …"""
PRIOR_HOURS = 30.0
"""… and for how many shard-hours that counts."""
OFFER_PRIOR = 150.0
"""Shard-steps for which the fleet's rate counts in an offer's own."""


@dataclass
class _Depth:
    """``units`` at ``step``; ``total`` / ``times`` is the average of the depths that were seen for certain."""

    units: float
    step: int
    total: float
    times: int = 1

    def seen(self, units: float, step: int) -> None:
        self.units, self.step = units, step
        self.total += units
        self.times += 1


@dataclass(frozen=True)
class SpotEvents:
    """One spot offer in one step, in units, all fleets together."""

    held: int
    denied: int
    reclaimed: int


@dataclass
class _Exposure:
    reclaimed: float
    shard_steps: float

    @property
    def rate(self) -> float:
        return self.reclaimed / self.shard_steps


@dataclass
class SupplyBelief:
    """``largest_slice``: per spot offer, the most shards one unit holds for any fleet."""

    step_hours: float
    largest_slice: Mapping[str, int]
    _depths: dict[str, _Depth] = field(default_factory=dict)
    _held: dict[str, int] = field(default_factory=dict)
    _fleets: dict[str, _Exposure] = field(default_factory=dict)
    _offers: dict[str, _Exposure] = field(default_factory=dict)

    def observe(self, step: int, events: Mapping[str, SpotEvents]) -> None:
        """A denial or a reclaim tells the depth; a grant tells that it is at least so much."""
        for offer in self.largest_slice:
            seen = events.get(offer, SpotEvents(0, 0, 0))
            self._held[offer] = seen.held
            known = self._depths.get(offer)
            if seen.denied or seen.reclaimed:
                if known is None:
                    self._depths[offer] = _Depth(seen.held, step, seen.held)
                else:
                    known.seen(seen.held, step)
            elif known is None and seen.held:
                self._depths[offer] = _Depth(seen.held + 1, step, seen.held + 1)
            elif known is not None and seen.held > known.units:
                known.units, known.step = seen.held, step - FRESH_STEPS - 1

    def exposed(self, fleet: str, offer: str, *, held: float, reclaimed: float) -> None:
        """Shards of a fleet on an offer over one step, after ``reclaimed`` of them were taken."""
        for kept, key in ((self._fleets, fleet), (self._offers, offer)):
            prior = self._fleet_prior() if kept is self._fleets else _Exposure(0.0, 0.0)
            entry = kept.setdefault(key, prior)
            entry.reclaimed += reclaimed
            entry.shard_steps += held + reclaimed

    def reclaim_rate(self, fleet: str, offer: str) -> float:
        general = self._fleets.get(fleet, self._fleet_prior()).rate
        own = self._offers.get(offer, _Exposure(0.0, 0.0))
        return shrunk_rate(own.reclaimed, own.shard_steps, general, OFFER_PRIOR)

    def free_units(self, offer: str, step: int, shards: int) -> float:
        """Units beyond those held; ``shards`` of one unit turn the guess for an unknown offer into units."""
        return max(0.0, self._depth(offer, step, shards) - self._held.get(offer, 0))

    def fresh(self, offer: str, step: int) -> bool:
        known = self._depths.get(offer)
        return known is not None and step - known.step <= FRESH_STEPS

    def _depth(self, offer: str, step: int, shards: int) -> float:
        known = self._depths.get(offer)
        if known is None:
            seen = [depth.total / depth.times * self.largest_slice[each] for each, depth in self._depths.items()]
            return (median(seen) if len(seen) > 3 else UNKNOWN_SHARDS) / shards
        return drifted(known.units, known.total / known.times, step - known.step, FORGET_STEPS)

    def _fleet_prior(self) -> _Exposure:
        steps = PRIOR_HOURS / self.step_hours
        return _Exposure(PRIOR_RATE_HOUR * PRIOR_HOURS, steps)
