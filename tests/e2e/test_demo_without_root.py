"""The demo for who is not root: no namespaces, so no client follows the move; all else is as it is."""

import json
from pathlib import Path

import pytest

from providers.sandbox.processes import MARKER
from tests.command import shardwright

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_all_eight_stages_and_what_is_lost_is_said(
    tmp_path: Path, ordinary_user: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(MARKER, raising=False)
    told = shardwright("demo", "--state", tmp_path, wrapper=ordinary_user, timeout_seconds=600)
    assert told.code == 0, told.err[-4000:]
    stages = {line["stage"]: line for line in map(json.loads, (tmp_path / "demo.jsonl").read_text().splitlines())}
    assert len(stages) == 8
    assert stages["sandbox"]["namespaces"] is False
    assert stages["reconcile"]["second_round_changed"] is False
    assert "no client is shown" in told.err
    reclaim = stages["move"]["reclaim"]
    assert reclaim["from"] != reclaim["to"]
    assert reclaim["downtime_ms"] < 5000
    assert "client_gap_ms" not in reclaim
    assert stages["move"]["cost"]["gate"]["passes"] is True
    assert stages["clean"]["leftovers"] == []
