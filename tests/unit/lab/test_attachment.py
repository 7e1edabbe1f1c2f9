"""Which shards moved to another cell."""

from lab.attachment import Attachment


def test_the_first_load_moves_nothing_and_settles_on_stable_places_first() -> None:
    where = Attachment(3)
    assert where.follow(5, stable=[0, 2, 2], spot=[4, 0, 0]) == 0
    assert where.shards == [1, 2, 2]


def test_a_load_that_stays_without_its_places_has_moved() -> None:
    where = Attachment(2)
    where.follow(4, stable=[4, 0], spot=[0, 0])
    assert where.follow(4, stable=[1, 3], spot=[0, 0]) == 3
    assert where.shards == [1, 3]


def test_a_change_inside_a_cell_is_free() -> None:
    where = Attachment(1)
    where.follow(4, stable=[4], spot=[0])
    assert where.follow(4, stable=[0], spot=[4]) == 0


def test_shards_that_ended_are_those_that_stood_in_the_way() -> None:
    where = Attachment(2)
    where.follow(8, stable=[8, 0], spot=[0, 0])
    assert where.follow(3, stable=[8, 0], spot=[0, 0]) == 0
    assert where.shards == [8, 0]  # nobody has asked yet which five ended
    assert where.follow(6, stable=[3, 3], spot=[0, 0]) == 0
    assert where.shards == [3, 3]


def test_a_load_that_was_short_and_comes_back_has_not_moved() -> None:
    where = Attachment(2)
    where.follow(4, stable=[0, 4], spot=[0, 0])
    assert where.follow(1, stable=[1, 0], spot=[0, 0]) == 1
    assert where.follow(4, stable=[1, 3], spot=[0, 0]) == 0
