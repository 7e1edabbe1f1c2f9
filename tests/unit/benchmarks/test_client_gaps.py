from agent.record_client import RecordEntry
from benchmarks.client_gaps import longest_gap


def entry(number: int, acked: float) -> RecordEntry:
    return RecordEntry(number=number, sent=acked - 0.01, acked=acked)


def test_a_gap_counts_in_the_span_in_which_it_ends() -> None:
    entries = [entry(1, 1.0), entry(2, 1.1), entry(3, 1.6), entry(4, 1.7), entry(5, 4.0)]
    assert round(longest_gap(entries, 1.0, 2.0), 6) == 0.5
    assert round(longest_gap(entries, 3.0, 5.0), 6) == 2.3
    assert longest_gap(entries, 5.0, 6.0) == 0.0
