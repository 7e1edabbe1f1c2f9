from hypothesis import given
from hypothesis import strategies as st

from forecasting.scale.spread import LEAST_IN_BATCH, MOST_IN_BATCH, USUAL_BATCHES, InProcess, at_quarters, batches


@given(st.integers(0, 5000))
def test_batches_hold_everything_in_order_and_are_even(count: int) -> None:
    made = batches(range(count))
    assert [item for batch in made for item in batch] == list(range(count))
    sizes = {len(batch) for batch in made}
    assert not sizes or max(sizes) - min(sizes) <= 1
    assert max(sizes, default=0) <= MOST_IN_BATCH
    if count >= LEAST_IN_BATCH * USUAL_BATCHES:
        assert len(made) >= USUAL_BATCHES


def test_pieces_are_done_in_order_with_what_they_share() -> None:
    told: list[tuple[str, int, int]] = []
    spread = InProcess(lambda *progress: told.append(progress))
    assert list(spread.map(lambda shared, piece: shared * piece, 10, [1, 2, 3], what="tens")) == [10, 20, 30]
    assert told == [("tens", 1, 3), ("tens", 2, 3), ("tens", 3, 3)]


def test_progress_is_a_line_for_each_quarter() -> None:
    lines: list[str] = []
    told = at_quarters(lines.append)
    for done in range(1, 11):
        told("scoring", done, 10)
    told("few", 1, 1)
    assert lines == [f"scoring: {done} of 10 pieces" for done in (3, 5, 8, 10)]
