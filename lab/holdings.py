"""What one fleet holds and has asked for, by offer, remembering the age of each unit (rule 4)."""

from collections.abc import Iterator
from typing import NamedTuple


class Cohort(NamedTuple):
    """Units that arrived (or will arrive) in the same step."""

    step: int
    units: int


class Holdings:
    """Cohorts stand in the order in which they arrived or were asked for, oldest first."""

    def __init__(self) -> None:
        self.held: dict[int, list[Cohort]] = {}
        self.pending: dict[int, list[Cohort]] = {}

    def units(self, offer: int) -> int:
        return sum(cohort.units for cohort in self.held.get(offer, ()))

    def have(self, offer: int) -> int:
        """Held and pending."""
        return self.units(offer) + sum(cohort.units for cohort in self.pending.get(offer, ()))

    def named(self) -> set[int]:
        """Offers with anything held or pending."""
        return self.held.keys() | self.pending.keys()

    def ask(self, offer: int, units: int, arrives: int) -> None:
        self.pending.setdefault(offer, []).append(Cohort(arrives, units))

    def hold(self, offer: int, units: int, step: int) -> None:
        cohorts = self.held.setdefault(offer, [])
        if cohorts and cohorts[-1].step == step:
            units += cohorts.pop().units
        cohorts.append(Cohort(step, units))

    def give_up(self, offer: int, units: int, before: int) -> list[Cohort]:
        """Cancel pending units, youngest first, then give held ones back before step ``before``, oldest first.

        Returns the held ones that were given back.
        """
        left = units - sum(cohort.units for cohort in _take_last(self.pending, offer, units))
        return _take_first(self.held, offer, left) if left else []

    def due(self, step: int) -> Iterator[tuple[int, int]]:
        """Offers and units that arrive in ``step``; they are pending no longer."""
        for offer in sorted(self.pending):
            cohorts = self.pending[offer]
            arriving = sum(cohort.units for cohort in cohorts if cohort.step <= step)
            if arriving:
                rest = [cohort for cohort in cohorts if cohort.step > step]
                if rest:
                    self.pending[offer] = rest
                else:
                    del self.pending[offer]
                yield offer, arriving

    def lose(self, offer: int, step: int, units: int) -> None:
        """The cohort of ``step`` loses ``units``; it has them."""
        left = [c if c.step != step else Cohort(step, c.units - units) for c in self.held[offer]]
        self.held[offer] = [cohort for cohort in left if cohort.units]
        if not self.held[offer]:
            del self.held[offer]


def reclaim(fleets: list[Holdings], offer: int, units: int) -> list[tuple[int, int]]:
    """Take ``units`` of a spot offer from whoever holds them: youngest first, then last fleet first (rule 5a).

    Returns fleets (positions) and units.
    """
    standing = [
        (cohort.step, at, cohort.units) for at, mine in enumerate(fleets) for cohort in mine.held.get(offer, ())
    ]
    taken = []
    for step, at, there in sorted(standing, reverse=True):
        if units == 0:
            break
        lost = min(units, there)
        fleets[at].lose(offer, step, lost)
        taken.append((at, lost))
        units -= lost
    return taken


def _take_last(where: dict[int, list[Cohort]], offer: int, units: int) -> list[Cohort]:
    return _take(where, offer, units, -1)


def _take_first(where: dict[int, list[Cohort]], offer: int, units: int) -> list[Cohort]:
    return _take(where, offer, units, 0)


def _take(where: dict[int, list[Cohort]], offer: int, units: int, end: int) -> list[Cohort]:
    cohorts = where.get(offer, [])
    taken = []
    while units and cohorts:
        cohort = cohorts.pop(end)
        some = min(units, cohort.units)
        taken.append(Cohort(cohort.step, some))
        units -= some
        if some < cohort.units:
            cohorts.insert(len(cohorts) if end else 0, Cohort(cohort.step, cohort.units - some))
    if offer in where and not cohorts:
        del where[offer]
    return taken
