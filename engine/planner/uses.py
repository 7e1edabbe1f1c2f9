"""What the plan could use an offer for, told before anything is negotiated: a quote on which nothing may be bought was
not worth asking for.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from engine.market.shortlist import Use, Uses
from engine.model.capacity import CapacityTarget
from engine.model.ids import CellId, PoolId
from engine.model.market import Offer
from engine.model.placement import Cell
from engine.planner.need import Needs, read_needs
from engine.planner.parts import in_parts
from engine.planner.policy import PlanPolicy
from engine.planner.screening import Screen


def uses_of(
    policy: PlanPolicy, targets: Sequence[CapacityTarget], max_parts: Mapping[PoolId, int], cells: Iterable[Cell]
) -> Uses:
    """One use for the pools that are alike to an offer: same slice, same places, same least performance.

    A pool that may be divided is two of them, whole and in its smallest parts: which it will be is not known yet.
    """
    parts = [(target, max_parts.get(target.pool.id, 1)) for target in targets]
    divided = [in_parts(target, most) for target, most in parts if most > 1]
    known = {cell.id: cell for cell in cells}
    sides = [_Side.of(policy, some, known) for some in (targets, divided) if some]

    def of(offer: Offer) -> tuple[Use, ...]:
        return tuple(use for side in sides for use in side.uses(offer))

    return of


@dataclass(frozen=True)
class _Side:
    screen: Screen
    by_pool: tuple[Use, ...]
    _seen: dict[tuple[int, ...], tuple[Use, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, policy: PlanPolicy, targets: Sequence[CapacityTarget], cells: dict[CellId, Cell]) -> "_Side":
        needs = read_needs(policy, targets)
        return cls(Screen(policy, needs, cells), _by_pool(needs))

    def uses(self, offer: Offer) -> tuple[Use, ...]:
        pools = self.screen.fit(offer).pools
        if pools not in self._seen:
            self._seen[pools] = tuple(dict.fromkeys(self.by_pool[pool] for pool in pools))
        return self._seen[pools]


def _by_pool(needs: Needs) -> tuple[Use, ...]:
    uses: dict[int, Use] = {}
    for kind in needs.kinds:
        uses |= dict.fromkeys(kind.pools, Use(needs.shapes[kind.shape]))
    return tuple(uses[pool] for pool in range(len(needs.pools)))
