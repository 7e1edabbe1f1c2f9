"""Buying spot for one fleet when its depth is unknown: ask, remember who denied, cover what is not there yet."""

from dataclasses import dataclass, field
from math import ceil

from lab.policies.board_view import BoardView, FleetView, Sold, units_held
from lab.wire import Observe


@dataclass
class Denials:
    """Offers that denied a unit, or took one back, within the last hour: they hold no more than they do."""

    steps: int = 1
    _until: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, board: BoardView) -> "Denials":
        return cls(steps=max(1, round(1 / board.step_hours)))

    def see(self, observe: Observe) -> None:
        for refused in (observe.denied, observe.reclaimed):
            for offers in refused.values():
                for offer, units in offers.items():
                    if units:
                        self._until[offer] = observe.step + self.steps

    def full(self, offer: str, step: int) -> bool:
        return self._until.get(offer, -1) >= step + 1


def spot_targets(
    fleet: FleetView, wanted: int, observe: Observe, denials: Denials, group_share: float = 1.0
) -> dict[str, int]:
    """Units by offer for ``wanted`` shards in the next step, cheapest first.

    Offers of one group together carry at most ``group_share`` of them. What arrives only the step after is asked for
    and, until it is there, covered by what arrives in time. Beyond all spot stands the cheapest on-demand offer.
    """
    offers = fleet.worth_asking()
    have = units_held(observe, fleet.id, offers)
    full = {each.id: denials.full(each.id, observe.step) for each in offers}
    targets = _wanted_in_time(wanted, offers, have, full, group_share)
    there = sum(_there(each, targets.get(each.id, 0), have) * each.shards for each in offers)
    left = wanted - there
    for each in offers:
        spare = have[each.id] - targets.get(each.id, 0)
        keep = min(spare, ceil(left / each.shards)) if each.lead == 1 else 0
        if keep > 0:
            targets[each.id] = targets.get(each.id, 0) + keep
            left -= keep * each.shards
    return _bought(targets, left, [each for each in offers if each.lead == 1 and not full[each.id]], fleet.on_demand)


def _wanted_in_time(
    wanted: int, offers: tuple[Sold, ...], have: dict[str, int], full: dict[str, bool], group_share: float
) -> dict[str, int]:
    """What is had already stays first, cheapest first, so that nothing moves to save a little."""
    targets: dict[str, int] = {}
    left, most = wanted, ceil(wanted * group_share)
    in_group: dict[str, int] = {}
    for asking in (False, True):
        for each in offers:
            room = min(left, most - in_group.get(each.group, 0))
            units = ceil(room / each.shards)
            if not asking:
                units = min(units, have[each.id])
            if units > 0 and not (asking and full[each.id]):
                targets[each.id] = targets.get(each.id, 0) + units
                in_group[each.group] = in_group.get(each.group, 0) + units * each.shards
                left -= units * each.shards
    return targets


def _there(offer: Sold, target: int, have: dict[str, int]) -> int:
    """Of the units wanted, those that can serve in the next step."""
    return target if offer.lead == 1 else min(target, have[offer.id])


def _bought(targets: dict[str, int], left: int, spot: list[Sold], on_demand: tuple[Sold, ...]) -> dict[str, int]:
    source = next(iter([*spot, *on_demand[:1]]), None)
    if left > 0 and source is not None:
        targets[source.id] = targets.get(source.id, 0) + ceil(left / source.shards)
    return targets


def fallback_list(fleet: FleetView) -> tuple[str, ...]:
    """Quick spot, cheapest first, then the cheapest on-demand offer."""
    return tuple(each.id for each in (*fleet.worth_asking(), *fleet.on_demand[:1]) if each.lead == 1)


def spot_only(fleet: FleetView, wanted: int, observe: Observe, denials: Denials) -> tuple[dict[str, int], int]:
    """Spot for ``wanted`` shards, without anything to stand in; and the shards of it that are held already."""
    offers = fleet.worth_asking()
    have = units_held(observe, fleet.id, offers)
    full = {each.id: denials.full(each.id, observe.step) for each in offers}
    targets = _wanted_in_time(wanted, offers, have, full, 1.0)
    held = observe.held.get(fleet.id, {})
    return targets, sum(min(targets.get(each.id, 0), held.get(each.id, 0)) * each.shards for each in offers)
