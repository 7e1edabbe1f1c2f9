import sys

import pytest

from benchmarks.ledger_reads import main


def test_a_small_ledger_is_measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["ledger_reads", "--charges", "90", "--nodes", "7"])
    main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["append", "sums, report and verdicts", "download"]
    assert lines[1].endswith("(90 rows)")
