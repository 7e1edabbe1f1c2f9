"""What a witness makes of when guests ran."""

from tests.witness import Span, overlaps, pauses


def span(qemu: int, began: float, ended: float | None, shard: str = "s1") -> Span:
    return Span(node=f"n{qemu}", shard=shard, qemu=qemu, began=began, ended=ended)


def test_two_processes_of_one_shard_that_run_at_once_are_seen() -> None:
    assert overlaps([span(1, 0, 10), span(2, 9.9, None)])
    assert overlaps([span(1, 0, None), span(2, 5, None)])


def test_one_after_the_other_is_no_overlap_nor_are_two_shards_or_one_process() -> None:
    assert not overlaps([span(1, 0, 10), span(2, 10.1, None)])
    assert not overlaps([span(1, 0, None), span(2, 0, None, shard="s2")])
    assert not overlaps([span(1, 0, 5), span(1, 4, None)])


def test_pauses_tell_whether_it_went_on_elsewhere() -> None:
    held, moved = span(1, 5.5, 10), span(2, 10.25, None)
    assert pauses([moved, span(1, 0, 5), held]) == [(0.5, False), (0.25, True)]
