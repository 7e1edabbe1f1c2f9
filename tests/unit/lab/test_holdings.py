"""Units remember when they came: what is cancelled, given back and reclaimed first."""

from lab.holdings import Cohort, Holdings, reclaim

A, B = 0, 1


def holdings(*cohorts: tuple[int, int]) -> Holdings:
    mine = Holdings()
    for step, units in cohorts:
        mine.hold(A, units, step)
    return mine


def test_units_of_one_step_are_one_cohort() -> None:
    assert holdings((0, 1), (0, 2), (3, 1)).held == {A: [Cohort(0, 3), Cohort(3, 1)]}


def test_the_youngest_pending_go_first_then_the_oldest_held() -> None:
    mine = holdings((0, 2), (3, 2))
    mine.ask(A, 1, arrives=5)
    mine.ask(A, 2, arrives=6)
    assert mine.give_up(A, 2, before=5) == []
    assert mine.pending == {A: [Cohort(5, 1)]}
    assert mine.give_up(A, 4, before=5) == [Cohort(0, 2), Cohort(3, 1)]
    assert (mine.held, mine.pending) == ({A: [Cohort(3, 1)]}, {})


def test_what_is_due_is_pending_no_longer() -> None:
    mine = Holdings()
    mine.ask(B, 1, arrives=2)
    mine.ask(A, 2, arrives=2)
    mine.ask(A, 3, arrives=3)
    assert list(mine.due(2)) == [(A, 2), (B, 1)]
    assert (mine.have(A), mine.have(B)) == (3, 0)
    assert mine.named() == {A}


def test_reclaims_take_the_youngest_then_the_last_fleet() -> None:
    fleets = [holdings((0, 2), (4, 1)), holdings((0, 2)), holdings((4, 1))]
    assert reclaim(fleets, A, 4) == [(2, 1), (0, 1), (1, 2)]
    assert [mine.units(A) for mine in fleets] == [2, 0, 0]
    assert fleets[1].named() == set()
