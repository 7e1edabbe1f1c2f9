"""Quantile sizing, diversified spot and commitments: the newsvendor split that brokers lack (Wang et al. for the
reserved part, Tributary, ATC 2018, for a diverse set of spot pools, a regression's quantiles for the size).

Commitments: at the start, and as terms end, for each further shard whose price for the whole term is below what
on-demand would cost for the share of the history in which it was used. Spot: cheapest first, of no correlation group
more than a quarter of the need. Denied: down the list, ending on on-demand. Against reclaims, more is bought: a
quantile of what was lost to them in a step.
"""

from math import ceil

import numpy as np

from lab.policies.board_view import BoardView, FleetView, Sold
from lab.policies.sizing import QuantileOf, Regression
from lab.policies.spot_buying import Denials, fallback_list, spot_targets
from lab.wire import Commit, Init, Observe, Order

GROUP_SHARE = 0.25
LOST_QUANTILE = 0.9


class QuantileDiversified:
    def start(self, init: Init) -> None:
        self._board = BoardView(init)
        self._denials = Denials.of(self._board)
        self._sizing = QuantileOf(Regression)
        self._sizing.start(self._board)
        self._shards = {offer.id: offer.shards_per_unit for offer in init.offers}
        self._lost: dict[str, list[float]] = {fleet.id: [] for fleet in self._board.fleets}

    def answer(self, observe: Observe) -> Order:
        self._board.see(observe)
        self._denials.see(observe)
        commits = [commit for fleet in self._board.fleets for commit in self._commit(fleet, observe)]
        return Order(
            step=observe.step,
            targets={fleet.id: self._targets(fleet, observe, commits) for fleet in self._board.fleets},
            fallback={fleet.id: fallback_list(fleet) for fleet in self._board.fleets},
            commit=tuple(commits),
        )

    def _targets(self, fleet: FleetView, observe: Observe, commits: list[Commit]) -> dict[str, int]:
        committed = self._committed(fleet, observe) + sum(
            c.units * self._shards[c.offer][fleet.id] for c in commits if c.fleet == fleet.id
        )
        wanted = max(0, self._sizing.shards(fleet) - committed)
        return spot_targets(
            fleet, wanted + min(wanted, self._spare(fleet, observe)), observe, self._denials, GROUP_SHARE
        )

    def _committed(self, fleet: FleetView, observe: Observe) -> int:
        """Shards of commitments that serve in the next step."""
        return sum(
            each.units * self._shards[each.offer][fleet.id]
            for each in observe.commitments
            if each.fleet == fleet.id and each.start <= observe.step + 1 < each.until
        )

    def _spare(self, fleet: FleetView, observe: Observe) -> int:
        lost = self._lost[fleet.id]
        gone = observe.reclaimed.get(fleet.id, {})
        lost.append(float(sum(units * self._shards[offer][fleet.id] for offer, units in gone.items())))
        return ceil(np.quantile(lost[-7 * self._board.steps_a_day :], LOST_QUANTILE))

    def _commit(self, fleet: FleetView, observe: Observe) -> list[Commit]:
        left = self._board.steps - 1 - observe.step
        fitting = [offer for offer in fleet.commitments if offer.lead == 1 and offer.term <= left]
        if not fitting or not fleet.on_demand or not fleet.demand:
            return []
        best = fitting[0]
        units = (_worth_committing(fleet, best) - self._committed(fleet, observe)) // best.shards
        return [Commit(fleet=fleet.id, offer=best.id, units=units)] if units > 0 else []


def _worth_committing(fleet: FleetView, offer: Sold) -> int:
    """Shards each of which was used often enough that the whole term is cheaper than on-demand when needed."""
    least_use = offer.per_shard / fleet.on_demand[0].per_shard
    return int(np.quantile(fleet.series[-2 * offer.term :], 1 - least_use)) if least_use < 1 else 0
