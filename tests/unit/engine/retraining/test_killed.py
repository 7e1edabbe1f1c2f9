"""``kill -9`` of a real process in a retraining: the next one goes on, and nothing is trained or registered twice."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from forecasting.promotions import Promotions

ROOT = Path(__file__).resolve().parents[4]


def process(folder: Path, *point: str) -> tuple[int, list[str]]:
    """Its exit code and what it printed. Forty training steps are enough to be killed in."""
    code = (
        "import forecasting.network, runpy, sys; forecasting.network.TUNING_STEPS = 40;"
        "runpy.run_path(sys.argv.pop(1), run_name='__main__')"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(ROOT / "tests" / "retraining_process.py"), str(folder), *point],
        capture_output=True, text=True, check=False, cwd=ROOT, env=environment, timeout=150,
    )  # fmt: skip
    return done.returncode, done.stdout.splitlines()


@pytest.mark.parametrize(
    ("point", "again"),
    [
        ("in:train", ["train", "evaluate", "conclude", "leave"]),
        ("after:train", ["train", "evaluate", "conclude", "leave"]),
        ("after:conclude", ["conclude", "leave"]),
    ],
)
def test_a_killed_retraining_goes_on_where_it_was(point: str, again: list[str], tmp_path: Path) -> None:
    code, begun = process(tmp_path, point)
    assert code == -signal.SIGKILL
    assert begun[-1] == point.split(":")[1]
    weights = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/model.pt")}
    assert len(weights) == (0 if point == "in:train" else 1)

    code, begun = process(tmp_path)
    assert code == 0
    assert begun[: len(again)] == again  # what was recorded is not done again
    assert '"why":"retraining 1 was made from exactly this usage"' in begun[-1]  # the command's own had nothing to do
    promotions = Promotions(tmp_path)
    (record,) = promotions.all()
    assert (record.version, record.cause) == (1, "first")
    (card,) = promotions.registry.cards()
    assert card.fingerprint == record.model
    for path, written in weights.items():
        assert path.stat().st_mtime_ns == written  # found in the registry, not trained again
    assert list((tmp_path / "retrainings" / "sets").iterdir()) == []
