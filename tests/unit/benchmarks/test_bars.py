import json

import pytest

from benchmarks.bars import Bar, percentile, quartiles, show


def test_percentiles_lie_between_the_ranks() -> None:
    assert percentile([4.0, 1.0, 3.0, 2.0], 0.5) == 2.5
    assert percentile([1.0], 0.99) == 1.0
    assert quartiles([1.0, 2.0, 3.0, 4.0, 5.0]) == (2.0, 3.0, 4.0)
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def test_the_table_says_of_each_row_whether_it_was_reached(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [Bar(what="a", bar="<= 1", measured="2", reached=False), Bar(what="b", bar="-", measured="3", reached=None)]
    show(rows, "table")
    assert capsys.readouterr().out.splitlines()[2:] == ["| a | <= 1 | 2 | no |", "| b | - | 3 | - |"]
    show(rows, "json")
    assert [row["reached"] for row in json.loads(capsys.readouterr().out)] == [False, None]
